//! What calls need, completed by what only the services behind the proxy know: the role in an instance profile, a
//! table's partition keys, the key of a parameter.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use spillway_world::ec2::InstanceProfile;

use super::ask::Ask;
use super::context::Context;
use super::dynamodb::{self, PartitionKeys};
use super::{AuthorizeError, Authorizer, ec2, lock, ssm};
use crate::emulator::root::RootError;
use crate::xml;

impl Authorizer {
    pub(super) async fn ec2_asks(&self, body: &Bytes) -> Result<Option<Vec<Ask>>, AuthorizeError> {
        let Ok(request) = self.ec2.understand(body).await else {
            return Ok(None);
        };
        let needs = self.ec2.with(|ec2, _| ec2::needs(ec2, &request));
        let mut asks = needs.asks;
        for profile in needs.profiles {
            let Some(role) = self.role_of(&profile).await? else {
                return Err(AuthorizeError::Unknown(
                    "an instance profile that IAM does not know",
                ));
            };
            let context = Context::default().with("iam:PassedToService", "ec2.amazonaws.com");
            let ask = Ask::new("iam:PassRole", role).with(context);
            if !asks.contains(&ask) {
                asks.push(ask);
            }
        }
        Ok(Some(asks))
    }

    /// The ARN of the role in an instance profile.
    async fn role_of(&self, profile: &InstanceProfile) -> Result<Option<String>, AuthorizeError> {
        let by_arn = profile
            .arn
            .as_deref()
            .and_then(|arn| arn.rsplit('/').next());
        let Some(name) = by_arn.or(profile.name.as_deref()) else {
            return Ok(None);
        };
        let parameters = [("InstanceProfileName", name)];
        let answer = self.root.iam("GetInstanceProfile", &parameters).await?;
        let roles = xml::blocks(&answer, "Roles").concat();
        Ok(xml::text(&roles, "Arn"))
    }

    pub(super) async fn dynamodb_asks(
        &self,
        operation: &str,
        body: &Value,
    ) -> Result<Option<Vec<Ask>>, AuthorizeError> {
        let unread = |error| AuthorizeError::Unread(format!("dynamodb {operation}: {error}"));
        let tables = dynamodb::tables(operation, body).map_err(unread)?;
        let mut keys = BTreeMap::new();
        for table in tables {
            let Some(own) = self.partition_keys(&table).await? else {
                return Ok(None);
            };
            keys.insert(table, own);
        }
        dynamodb::asks(operation, body, &keys)
            .map(Some)
            .map_err(unread)
    }

    async fn partition_keys(&self, table: &str) -> Result<Option<PartitionKeys>, AuthorizeError> {
        let kept = lock(&self.shared.tables).get(table).cloned();
        if kept.is_some() {
            return Ok(kept);
        }
        let body = json!({"TableName": table});
        let answer = self
            .root
            .json("dynamodb", "DynamoDB_20120810.DescribeTable", &body)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(RootError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let table_itself = &answer["Table"];
        let indexes = ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"]
            .into_iter()
            .flat_map(|kind| table_itself[kind].as_array().into_iter().flatten())
            .filter_map(|index| Some((index["IndexName"].as_str()?, index)));
        let keys: PartitionKeys = std::iter::once(("", table_itself))
            .chain(indexes)
            .filter_map(|(name, of)| {
                let schema = of["KeySchema"].as_array()?;
                let hash = schema.iter().find(|key| key["KeyType"] == "HASH")?;
                Some((name.to_owned(), hash["AttributeName"].as_str()?.to_owned()))
            })
            .collect();
        lock(&self.shared.tables).insert(table.to_owned(), keys.clone());
        Ok(Some(keys))
    }

    pub(super) async fn ssm_asks(
        &self,
        operation: &str,
        body: &Value,
    ) -> Result<Option<Vec<Ask>>, AuthorizeError> {
        let Some(needs) = ssm::needs(operation, body) else {
            return Err(AuthorizeError::Unread(format!(
                "ssm {operation} with {body}"
            )));
        };
        let mut asks = needs.asks;
        for secret in needs.secrets {
            let key_id = match &secret.key_id {
                Some(key_id) => Some(key_id.clone()),
                None => self.key_of_parameter(&secret.name).await?,
            };
            if let Some(key_id) = key_id {
                asks.push(match self.customer_key(&key_id).await? {
                    Some(key_arn) => ssm::key_ask(&secret, &key_arn),
                    None => ssm::key_ask(&secret, &ssm::managed_key()).granted(),
                });
            }
        }
        Ok(Some(asks))
    }

    /// The key of a `SecureString`; none if there is no such parameter or it is no secret.
    async fn key_of_parameter(&self, name: &str) -> Result<Option<String>, AuthorizeError> {
        let filter =
            json!({"ParameterFilters": [{"Key": "Name", "Option": "Equals", "Values": [name]}]});
        let answer = self
            .root
            .json("ssm", "AmazonSSM.DescribeParameters", &filter)
            .await?;
        let found = &answer["Parameters"][0];
        Ok((found["Type"] == "SecureString")
            .then(|| found["KeyId"].as_str().map(str::to_owned))
            .flatten())
    }

    /// The ARN of a customer's key; none for the key that AWS manages for Parameter Store.
    async fn customer_key(&self, key_id: &str) -> Result<Option<String>, AuthorizeError> {
        if key_id.ends_with("alias/aws/ssm") {
            return Ok(None);
        }
        let body = json!({"KeyId": key_id});
        let answer = self
            .root
            .json("kms", "TrentService.DescribeKey", &body)
            .await?;
        let key = &answer["KeyMetadata"];
        if key["KeyManager"] == "AWS" {
            return Ok(None);
        }
        Ok(key["Arn"].as_str().map(str::to_owned))
    }
}
