//! Which items of a table a call of DynamoDB writes: what it costs is counted by items, not by calls.

use std::collections::BTreeMap;

use serde_json::Value;

/// The table's only key.
const KEY: &str = "pk";

/// How many items the call writes if it succeeds, by the first word of their keys.
pub(super) fn items(operation: &str, body: &[u8]) -> BTreeMap<String, u32> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let actions = body["TransactItems"].as_array().into_iter().flatten();
    let keys: Vec<&Value> = match operation {
        "PutItem" => vec![&body["Item"][KEY]],
        "UpdateItem" | "DeleteItem" => vec![&body["Key"][KEY]],
        "TransactWriteItems" => actions.filter_map(of_action).collect(),
        _ => Vec::new(),
    };
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(first_word(key)).or_default() += 1;
    }
    counts
}

/// The key that an action of a transaction writes; a check writes none.
fn of_action(action: &Value) -> Option<&Value> {
    let (name, action) = action.as_object()?.iter().next()?;
    match name.as_str() {
        "Put" => Some(&action["Item"][KEY]),
        "Update" | "Delete" => Some(&action["Key"][KEY]),
        _ => None,
    }
}

fn first_word(key: &Value) -> String {
    let text = key["S"].as_str().unwrap_or_default();
    let word = match text.split_once('#') {
        Some((word, _)) => word,
        None if text.starts_with("arn:") && text.contains(":instance/") => "instance",
        None => text,
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(operation: &str, body: &Value) -> Vec<(String, u32)> {
        let counts = items(operation, body.to_string().as_bytes());
        counts.into_iter().collect()
    }

    #[test]
    fn each_item_of_a_transaction_counts_and_a_check_does_not() {
        let node = json!({"pk": {"S": "NODE#lab#cloud-0"}});
        let instance = json!({"pk": {"S": "arn:aws:ec2:r:1:instance/i-1"}});
        let transaction = json!({"TransactItems": [
            {"Put": {"Item": node}},
            {"Update": {"Key": instance}},
            {"Put": {"Item": node}},
            {"ConditionCheck": {"Key": node}},
        ]});
        let expected = [("NODE".to_owned(), 2), ("instance".to_owned(), 1)];
        assert_eq!(count("TransactWriteItems", &transaction), expected);
    }

    #[test]
    fn single_writes_count_one_and_reads_none() {
        let request = json!({"pk": {"S": "REQUEST#lab#r-1#1"}});
        let one = [("REQUEST".to_owned(), 1)];
        assert_eq!(count("PutItem", &json!({"Item": request})), one);
        assert_eq!(count("UpdateItem", &json!({"Key": request})), one);
        assert_eq!(count("GetItem", &json!({"Key": request})), []);
    }
}
