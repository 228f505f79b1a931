//! What an operator's commands read and write besides the policy: any item as a record, and the hold of an instance.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use spillway_core::name::InstanceId;
use spillway_core::record::{HeldBy, InstanceRecord};

use super::{Item, KEY, Table, TableError};

/// What came of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It is protected no more.
    Done(Box<InstanceRecord>),
    /// No operator held it.
    NotHeld,
    /// It bears the tag in EC2, and the next sweep would hold it again.
    HeldByTag,
}

impl Table {
    /// The item at `key` whole, attribute by attribute; none if there is none.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TableError> {
        let Some(item) = self.item(key).await? else {
            return Ok(None);
        };
        self.parse(key, item).map(Some)
    }

    /// The JSON texts called `names` of the item at `key`, `null` for one that is not there; none if there is no item.
    pub async fn texts<const N: usize>(
        &self,
        key: &str,
        names: [&str; N],
    ) -> Result<Option<[Value; N]>, TableError> {
        let Some(item) = self.item(key).await? else {
            return Ok(None);
        };
        let mut texts = [const { Value::Null }; N];
        for (text, name) in texts.iter_mut().zip(names) {
            if let Some(AttributeValue::S(json)) = item.get(name) {
                let parsed = serde_json::from_str(json);
                *text = parsed.map_err(|error| self.malformed(key, format!("{name}: {error}")))?;
            }
        }
        Ok(Some(texts))
    }

    /// The record that the item at `key` holds as JSON; none if there is no item.
    pub async fn record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TableError> {
        let Some([record]) = self.texts(key, ["record"]).await? else {
            return Ok(None);
        };
        let parsed = serde_json::from_value(record);
        parsed
            .map(Some)
            .map_err(|error| self.malformed(key, format!("record: {error}")))
    }

    /// Protects an instance from being ended by us. One that nothing is known of serves nobody: its item says released.
    pub async fn hold(&self, arn: &str, id: &InstanceId) -> Result<InstanceRecord, TableError> {
        let answer = self
            .update(arn)
            .update_expression(
                "SET #kind = :kind, instance_id = :id, held = :held, #state = if_not_exists(#state, :released)",
            )
            .expression_attribute_names("#kind", "kind")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":kind", text("instance"))
            .expression_attribute_values(":id", text(id.as_str()))
            .expression_attribute_values(":held", text("operator"))
            .expression_attribute_values(":released", text("released"))
            .send()
            .await
            .map_err(|error| self.refused(&error))?;
        self.parse(arn, answer.attributes.unwrap_or_default())
    }

    /// Takes an operator's hold back.
    pub async fn release(&self, arn: &str) -> Result<Released, TableError> {
        let item: Option<InstanceRecord> = self.read(arn).await?;
        match item.and_then(|item| item.held) {
            None => return Ok(Released::NotHeld),
            Some(HeldBy::Tag) => return Ok(Released::HeldByTag),
            Some(HeldBy::Operator) => {}
        }
        let sent = self
            .update(arn)
            .update_expression("REMOVE held")
            .condition_expression("held = :held")
            .expression_attribute_values(":held", text("operator"))
            .send()
            .await;
        match sent {
            Ok(answer) => self
                .parse(arn, answer.attributes.unwrap_or_default())
                .map(|record| Released::Done(Box::new(record))),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(Released::NotHeld)
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn update(&self, key: &str) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.name)
            .key(KEY, text(key))
            .return_values(ReturnValue::AllNew)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, item: Item) -> Result<T, TableError> {
        let value = value_of(AttributeValue::M(item));
        serde_json::from_value(value).map_err(|error| self.malformed(key, error.to_string()))
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// An attribute as JSON. Our items hold no sets and no bytes: those become `null`.
fn value_of(attribute: AttributeValue) -> Value {
    match attribute {
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::Bool(is) => Value::Bool(is),
        AttributeValue::N(digits) => digits.parse::<Number>().map_or(Value::Null, Value::Number),
        AttributeValue::L(list) => list.into_iter().map(value_of).collect(),
        AttributeValue::M(map) => {
            let pairs = map.into_iter().map(|(name, value)| (name, value_of(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_item_is_read_as_the_record_it_is() {
        let number = |digits: &str| AttributeValue::N(digits.to_owned());
        let pool = HashMap::from([
            ("capacity".to_owned(), text("spot")),
            ("instance_type".to_owned(), text("c7i.large")),
            ("zone".to_owned(), text("us-east-1a")),
        ]);
        let item = HashMap::from([
            (
                "pk".to_owned(),
                text("arn:aws:ec2:us-east-1:0:instance/i-12345678"),
            ),
            ("instance_id".to_owned(), text("i-12345678")),
            ("state".to_owned(), text("released")),
            ("held".to_owned(), text("operator")),
            ("generation".to_owned(), number("1790000000000001")),
            ("pool".to_owned(), AttributeValue::M(pool)),
        ]);
        let record: InstanceRecord =
            serde_json::from_value(value_of(AttributeValue::M(item))).unwrap();
        assert_eq!(record.held, Some(HeldBy::Operator));
        assert_eq!(record.generation.unwrap().get(), 1_790_000_000_000_001);
        assert_eq!(record.pool.unwrap().zone, "us-east-1a");
        let list = AttributeValue::L(vec![number("1"), AttributeValue::Bool(true)]);
        assert_eq!(value_of(list), json!([1, true]));
    }
}
