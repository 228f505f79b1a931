//! The calls, made by boto3.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use spillway_lab::emulator::REGION;
use spillway_lab::emulator::root::Credentials;
use spillway_lab::lab::Lab;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::principals::Principal;

const SCRIPT: &str = include_str!("calls.py");

/// A call: boto3's names of service and method, and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub service: &'static str,
    pub method: &'static str,
    pub arguments: Value,
}

/// A call by someone.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub who: Principal,
    pub call: Call,
}

/// How a call was refused; none for one that was carried out.
pub type Outcome = Option<Refusal>;

/// An error answer.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// Makes the calls one after the other.
pub async fn carry_out(
    lab: &Lab,
    who: &BTreeMap<Principal, Credentials>,
    asked: &[Asked],
) -> Vec<Outcome> {
    let calls: Vec<Value> = asked
        .iter()
        .map(|Asked { who: name, call }| {
            let signer = &who[name];
            json!({
                "key": signer.access_key_id,
                "secret": signer.secret_access_key,
                "token": signer.session_token,
                "service": call.service,
                "method": call.method,
                "arguments": call.arguments,
            })
        })
        .collect();
    let mut python = Command::new(lab.venv.join("bin/python"))
        .args(["-c", SCRIPT])
        .env_clear()
        .env("HOME", &lab.spec.state)
        .env("AWS_ENDPOINT_URL", lab.cloud.proxy.url())
        .env("AWS_CA_BUNDLE", &lab.cloud.certificates.bundle)
        .env("AWS_DEFAULT_REGION", REGION)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let text = Value::from(calls).to_string();
    input.write_all(text.as_bytes()).await.unwrap();
    drop(input);
    let output = python.wait_with_output().await.unwrap();
    assert!(output.status.success(), "boto3 failed, see above");
    serde_json::from_slice(&output.stdout).unwrap()
}
