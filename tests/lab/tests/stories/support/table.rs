//! What the table holds.

use serde_json::{Value, json};
use spillway_lab::lab::Lab;

use super::until;

/// Our record of a node as the table holds it, in DynamoDB's JSON; null if there is none.
pub async fn record(lab: &Lab, name: &str) -> Value {
    let key = json!({"pk": {"S": format!("NODE#{}#{name}", lab.spec.cluster)}});
    item(lab, &key).await
}

/// Waits until we hold that the node has joined: its instance.
pub async fn ready(lab: &Lab, name: &str) -> String {
    until(&format!("{name} is ready"), 30, async || {
        let record = record(lab, name).await;
        let instance = record["instance_id"]["S"].as_str()?.to_owned();
        (record["state"]["S"] == "ready").then_some(instance)
    })
    .await
}

/// An item of the table, in DynamoDB's JSON; null if there is none.
pub async fn item(lab: &Lab, key: &Value) -> Value {
    let table = lab.output("TableName").expect("the stack has a table");
    let body = json!({"TableName": table, "Key": key, "ConsistentRead": true});
    let root = lab.cloud.emulator.root();
    let mut answer = root
        .json("dynamodb", "DynamoDB_20120810.GetItem", &body)
        .await
        .expect("the table answers");
    answer["Item"].take()
}

/// The table's items of a kind (`node`, `instance`, `request` …), in DynamoDB's JSON.
pub async fn items(lab: &Lab, kind: &str) -> Vec<Value> {
    let table = lab.output("TableName").expect("the stack has a table");
    let mut body = json!({
        "TableName": table, "ConsistentRead": true, "FilterExpression": "kind = :kind",
        "ExpressionAttributeValues": {":kind": {"S": kind}},
    });
    let mut items = Vec::new();
    loop {
        let root = lab.cloud.emulator.root();
        let answer = root.json("dynamodb", "DynamoDB_20120810.Scan", &body).await;
        let mut answer = answer.expect("the table answers");
        if let Value::Array(page) = answer["Items"].take() {
            items.extend(page);
        }
        let last = answer["LastEvaluatedKey"].take();
        if last.is_null() {
            return items;
        }
        body["ExclusiveStartKey"] = last;
    }
}

/// The generation that the table holds for a node; 0 for none.
pub async fn generation(lab: &Lab, name: &str) -> u64 {
    record(lab, name).await["generation"]["N"]
        .as_str()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
