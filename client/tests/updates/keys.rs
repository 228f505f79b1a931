//! The operator's keys: made, listed, rotated, revoked, and never shown.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use spillway_core::envelope::SigningKey;

use crate::head::{HeadNode, stderr, stdout_json};

/// `spillway keys …` with the operator's credentials.
fn keys(head: &HeadNode, arguments: &[&str]) -> Output {
    head.program()
        .arg("keys")
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "operator")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap()
}

fn succeed(head: &HeadNode, arguments: &[&str]) -> Output {
    let output = keys(head, arguments);
    assert!(output.status.success(), "{output:?}");
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A new key: its id, its public line, and whether it signs.
fn create(head: &HeadNode) -> (String, String, bool) {
    let made = stdout_json(&succeed(head, &["create", "--json"]));
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("public"), made["active"] == true)
}

/// A key's line of the listing.
fn row(head: &HeadNode, id: &str) -> Value {
    let rows = stdout_json(&succeed(head, &["list", "--json"]));
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["id"] == id)
        .cloned()
        .unwrap_or_default()
}

fn name(last: &str) -> String {
    format!("/spillway/try/signing-key/{last}")
}

#[test]
fn the_first_key_signs_and_the_private_half_is_in_ssm_alone() {
    let head = HeadNode::new(&[]);
    let none = succeed(&head, &["list"]);
    assert!(stdout(&none).contains("keys create"), "{none:?}");
    let (first, first_public, is_active) = create(&head);
    assert!(is_active);
    let (second, second_public, is_active) = create(&head);
    assert!(!is_active);
    let stored = head.aws.parameters();
    assert_eq!(stored[&name("active")].value, first);
    assert_eq!(stored[&name("active")].kind, "String");
    let mut secrets = Vec::new();
    for (id, public) in [(&first, &first_public), (&second, &second_public)] {
        let kept = &stored[&name(id)];
        assert_eq!(kept.kind, "SecureString");
        let key = SigningKey::from_secret_text(&kept.value).unwrap();
        assert_eq!(key.public().to_string(), *public);
        assert_eq!(key.id().to_string(), *id);
        secrets.push(kept.value.clone());
    }
    let printed = succeed(&head, &["create"]);
    assert!(stdout(&printed).contains("trusted_keys"), "{printed:?}");
    let mut seen = vec![format!("{printed:?}{:?}", succeed(&head, &["list"]))];
    let files = fs::read_dir(head.path("")).unwrap();
    let files = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file());
    seen.extend(files.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()));
    for parameter in head.aws.parameters().values() {
        let is_secret = parameter.kind == "SecureString";
        let is_seen = seen.iter().any(|text| text.contains(&parameter.value));
        assert!(
            !(is_secret && is_seen),
            "a private half was shown or lies in a file"
        );
    }
    assert_eq!(secrets.len(), 2);
}

#[test]
fn a_key_is_rotated_and_the_old_one_revoked() {
    let head = HeadNode::new(&[]);
    let (first, first_public, _) = create(&head);
    let (second, ..) = create(&head);
    // Only the first line is in the configuration.
    head.configure(&[first_public.parse().unwrap()], "both");
    for (id, expected) in [(&first, true), (&second, false)] {
        let row = row(&head, id);
        assert_eq!(
            (&row["active"], &row["trusted_here"]),
            (&json!(expected), &json!(expected))
        );
        assert!(
            row["created"].as_str().unwrap().starts_with("2026-"),
            "{row}"
        );
    }
    let missing = keys(&head, &["rotate", "0123456789abcdef"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("there is no key 0123456789abcdef"),
        "{missing:?}"
    );
    assert_eq!(keys(&head, &["rotate", "no-id"]).status.code(), Some(2));
    let active = keys(&head, &["revoke", &first]);
    assert_eq!(active.status.code(), Some(1));
    assert!(stderr(&active).contains("keys rotate"), "{active:?}");
    for _ in 0..2 {
        let rotated = succeed(&head, &["rotate", &second]);
        assert!(stderr(&rotated).contains("does not trust"), "{rotated:?}");
    }
    assert_eq!(row(&head, &second)["active"], true);
    let said = stdout(&succeed(&head, &["revoke", &first]));
    assert!(
        said.contains("is deleted") && said.contains(&first_public),
        "{said}"
    );
    let again = stdout(&succeed(&head, &["revoke", &first]));
    assert!(again.contains("there is no private half"), "{again}");
    assert!(!head.aws.parameters().contains_key(&name(&first)));
    assert_eq!(
        row(&head, &first),
        json!({"id": first, "created": null, "active": false, "trusted_here": true})
    );
}
