//! The rights that DynamoDB's calls on items need, with the partition keys they are about as
//! `dynamodb:LeadingKeys`.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html>

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ask::{Ask, arn};
use super::context::Context;

/// The partition key's attribute of a table, under the name "", and of its indexes, under theirs.
pub(super) type PartitionKeys = BTreeMap<String, String>;

/// A call that cannot be read as the lab knows DynamoDB's calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(&'static str);

/// The names of the tables that a call is about.
pub(super) fn tables(operation: &str, body: &Value) -> Result<BTreeSet<String>, Unreadable> {
    let items = items(operation, body)?;
    Ok(items.into_iter().map(|item| item.table).collect())
}

/// What a call needs. `keys` are those of its [`tables`].
pub(super) fn asks(
    operation: &str,
    body: &Value,
    keys: &BTreeMap<String, PartitionKeys>,
) -> Result<Vec<Ask>, Unreadable> {
    // Of one action on one table, all keys together.
    let mut asked: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for item in items(operation, body)? {
        let partition_key = keys
            .get(&item.table)
            .and_then(|keys| keys.get(item.index.unwrap_or_default()))
            .ok_or(Unreadable("no such table or index"))?;
        let value = item
            .value_of(partition_key)
            .ok_or(Unreadable("no partition key"))?;
        let resource = match item.index {
            Some(index) => format!("table/{}/index/{index}", item.table),
            None => format!("table/{}", item.table),
        };
        let right = (
            format!("dynamodb:{}", item.action),
            arn("dynamodb", &resource),
        );
        asked.entry(right).or_default().insert(value);
    }
    let asks = asked.into_iter().map(|((action, resource), keys)| {
        Ask::new(&action, resource).with(Context::default().with_all("dynamodb:LeadingKeys", keys))
    });
    Ok(asks.collect())
}

/// One item, or one partition, that a call is about.
struct Item<'a> {
    /// The action without its prefix. A transaction's items need the rights of single calls.
    action: &'a str,
    table: String,
    index: Option<&'a str>,
    at: At<'a>,
}

/// Where the partition key's value is to be found.
enum At<'a> {
    /// In a key or a whole item.
    Attributes(&'a Value),
    /// In a Query's key condition.
    Condition(&'a Value),
}

fn items<'a>(operation: &'a str, body: &'a Value) -> Result<Vec<Item<'a>>, Unreadable> {
    let single = |action: &'a str, at: &'a Value, field: &str| -> Result<Item<'a>, Unreadable> {
        Ok(Item {
            action,
            table: table_of(&at["TableName"])?,
            index: None,
            at: At::Attributes(&at[field]),
        })
    };
    match operation {
        "GetItem" | "UpdateItem" | "DeleteItem" => Ok(vec![single(operation, body, "Key")?]),
        "PutItem" => Ok(vec![single(operation, body, "Item")?]),
        "Query" => Ok(vec![Item {
            action: operation,
            table: table_of(&body["TableName"])?,
            index: body["IndexName"].as_str(),
            at: At::Condition(body),
        }]),
        "BatchGetItem" => batch(operation, &body["RequestItems"], |requests| {
            list(&requests["Keys"]).collect()
        }),
        "BatchWriteItem" => batch(operation, &body["RequestItems"], |requests| {
            let requests = list(requests);
            requests
                .map(|request| match &request["PutRequest"]["Item"] {
                    Value::Null => &request["DeleteRequest"]["Key"],
                    item => item,
                })
                .collect()
        }),
        "TransactGetItems" => list(&body["TransactItems"])
            .map(|item| single("GetItem", &item["Get"], "Key"))
            .collect(),
        "TransactWriteItems" => list(&body["TransactItems"])
            .map(|item| {
                let (kind, at) = item
                    .as_object()
                    .and_then(|item| item.iter().next())
                    .ok_or(Unreadable("an empty transaction item"))?;
                match kind.as_str() {
                    "Put" => single("PutItem", at, "Item"),
                    "Update" => single("UpdateItem", at, "Key"),
                    "Delete" => single("DeleteItem", at, "Key"),
                    "ConditionCheck" => single("ConditionCheckItem", at, "Key"),
                    _ => Err(Unreadable("an unknown kind of transaction item")),
                }
            })
            .collect(),
        _ => Err(Unreadable("an unknown operation")),
    }
}

/// The items of `RequestItems`, table by table.
fn batch<'a>(
    action: &'a str,
    tables: &'a Value,
    keys: impl Fn(&'a Value) -> Vec<&'a Value>,
) -> Result<Vec<Item<'a>>, Unreadable> {
    let tables = tables.as_object().ok_or(Unreadable("no RequestItems"))?;
    let items = tables.iter().flat_map(|(table, requests)| {
        keys(requests).into_iter().map(|key| {
            Ok(Item {
                action,
                table: table_name(table).to_owned(),
                index: None,
                at: At::Attributes(key),
            })
        })
    });
    items.collect()
}

impl Item<'_> {
    fn value_of(&self, partition_key: &str) -> Option<String> {
        match self.at {
            At::Attributes(attributes) => text(&attributes[partition_key]),
            At::Condition(query) => {
                let condition = query["KeyConditionExpression"].as_str()?;
                let names = &query["ExpressionAttributeNames"];
                let and = regex_lite::Regex::new(r"(?i)\sand\s").expect("it is one");
                let equals = and.split(condition).find_map(|part| {
                    let (name, value) = part.split_once('=')?;
                    let name = name.trim().trim_start_matches('(');
                    let name = names[name].as_str().unwrap_or(name);
                    (name == partition_key).then(|| value.trim().trim_end_matches(')'))
                })?;
                text(&query["ExpressionAttributeValues"][equals])
            }
        }
    }
}

/// A key's value as the condition key shows it: without its type.
fn text(value: &Value) -> Option<String> {
    let (_, value) = value.as_object()?.iter().next()?;
    value.as_str().map(str::to_owned)
}

fn table_of(value: &Value) -> Result<String, Unreadable> {
    let name = value.as_str().ok_or(Unreadable("no TableName"))?;
    Ok(table_name(name).to_owned())
}

/// A table may be named by its ARN.
fn table_name(name: &str) -> &str {
    name.split_once(":table/").map_or(name, |(_, name)| name)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> BTreeMap<String, PartitionKeys> {
        let keys = [("", "pk"), ("due", "due_shard")];
        let keys = keys.map(|(index, key)| (index.to_owned(), key.to_owned()));
        BTreeMap::from([("t".to_owned(), PartitionKeys::from(keys))])
    }

    /// Each right as `action resource [leading keys]`.
    fn rights(operation: &str, body: &Value) -> Vec<String> {
        let asks = asks(operation, body, &schema()).unwrap();
        let show = |ask: Ask| {
            let keys = ask.context.get("dynamodb:LeadingKeys").unwrap().join(",");
            let resource = ask.resource.rsplit(':').next().unwrap().to_owned();
            format!("{} {resource} [{keys}]", ask.action)
        };
        asks.into_iter().map(show).collect()
    }

    #[test]
    fn each_call_needs_rights_on_the_keys_it_names() {
        let key = |pk: &str| json!({"pk": {"S": pk}});
        let table = [
            (
                "GetItem",
                json!({"TableName": "arn:aws:dynamodb:us-east-1:000000000000:table/t", "Key": key("a")}),
                vec!["dynamodb:GetItem table/t [a]"],
            ),
            (
                "PutItem",
                json!({"TableName": "t", "Item": {"pk": {"S": "a"}, "x": {"S": "b"}}}),
                vec!["dynamodb:PutItem table/t [a]"],
            ),
            (
                "BatchGetItem",
                json!({"RequestItems": {"t": {"Keys": [key("a"), key("b")]}}}),
                vec!["dynamodb:BatchGetItem table/t [a,b]"],
            ),
            (
                "BatchWriteItem",
                json!({"RequestItems": {"t": [{"PutRequest": {"Item": key("a")}}, {"DeleteRequest": {"Key": key("b")}}]}}),
                vec!["dynamodb:BatchWriteItem table/t [a,b]"],
            ),
            (
                "TransactWriteItems",
                json!({"TransactItems": [
                    {"Put": {"TableName": "t", "Item": key("a")}},
                    {"Update": {"TableName": "t", "Key": key("b")}},
                    {"Update": {"TableName": "t", "Key": key("c")}},
                    {"ConditionCheck": {"TableName": "t", "Key": key("d")}},
                ]}),
                vec![
                    "dynamodb:ConditionCheckItem table/t [d]",
                    "dynamodb:PutItem table/t [a]",
                    "dynamodb:UpdateItem table/t [b,c]",
                ],
            ),
            (
                "Query",
                json!({"TableName": "t", "KeyConditionExpression": "#p = :p",
                    "ExpressionAttributeNames": {"#p": "pk"}, "ExpressionAttributeValues": {":p": {"S": "a"}}}),
                vec!["dynamodb:Query table/t [a]"],
            ),
            (
                "Query",
                json!({"TableName": "t", "IndexName": "due",
                    "KeyConditionExpression": "due_at_ms <= :now AND due_shard = :s",
                    "ExpressionAttributeValues": {":s": {"S": "7"}, ":now": {"N": "1"}}}),
                vec!["dynamodb:Query table/t/index/due [7]"],
            ),
        ];
        for (operation, body, expected) in table {
            assert_eq!(rights(operation, &body), expected, "{operation}");
        }
    }

    #[test]
    fn what_names_no_key_is_not_judged() {
        for (operation, body) in [
            (
                "GetItem",
                json!({"TableName": "t", "Key": {"other": {"S": "a"}}}),
            ),
            (
                "GetItem",
                json!({"TableName": "unknown", "Key": {"pk": {"S": "a"}}}),
            ),
            (
                "Query",
                json!({"TableName": "t", "KeyConditionExpression": "pk > :p"}),
            ),
            ("Scan", json!({"TableName": "t"})),
        ] {
            assert!(
                asks(operation, &body, &schema()).is_err(),
                "{operation} {body}"
            );
        }
    }
}
