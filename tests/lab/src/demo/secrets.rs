//! No secret may be in anything that a run of the lab leaves: it is searched for, as it is and in the forms in which
//! programs write bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::lab::Lab;

/// Queues are looked into by what is left in them; these keep what failed.
const DEAD_LETTER_QUEUES: [&str; 5] = [
    "ResumeDeadLetterQueueUrl",
    "SuspendDeadLetterQueueUrl",
    "ReportsDeadLetterQueueUrl",
    "UpdatesDeadLetterQueueUrl",
    "CallbackFailuresQueueUrl",
];

/// The least that a search must have gone through to be one.
const LEAST_BYTES: usize = 100_000;

/// A secret in one of its forms, and whose it is.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// What a search went through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Searched {
    /// Files, tables and log groups.
    pub places: usize,
    /// How much was in them.
    pub bytes: usize,
    /// How many secrets were searched for, each in several forms.
    pub secrets: usize,
}

/// Searches everything that the lab has left so far, and fails with the place if a secret is there.
pub(super) async fn search(lab: &Lab) -> anyhow::Result<Searched> {
    let (needles, secrets) = needles(lab).await?;
    let mut places = left_in_files(lab)?;
    places.extend(left_in_the_cloud(lab).await?);
    let bytes = places.iter().map(|(_, content)| content.len()).sum();
    for (place, content) in &places {
        for needle in &needles {
            ensure!(
                !contains(content, &needle.bytes),
                "{} is in {place}",
                needle.what
            );
        }
    }
    ensure!(
        bytes >= LEAST_BYTES && secrets >= 3,
        "the search for {secrets} secrets went through {bytes} bytes only"
    );
    Ok(Searched {
        places: places.len(),
        bytes,
        secrets,
    })
}

/// Every secret of the lab: the munge key, what SSM keeps encrypted, and the keys that callers sign with.
async fn needles(lab: &Lab) -> anyhow::Result<(Vec<Needle>, usize)> {
    let mut secrets = vec![("the munge key".to_owned(), lab.head.munge_key().to_vec())];
    let root = lab.cloud.emulator.root();
    let body = json!({"Path": "/", "Recursive": true, "WithDecryption": true});
    let stored = root
        .json("ssm", "AmazonSSM.GetParametersByPath", &body)
        .await?;
    for parameter in stored["Parameters"].as_array().into_iter().flatten() {
        if parameter["Type"] == "SecureString" {
            let name = parameter["Name"].as_str().unwrap_or_default();
            let value = parameter["Value"].as_str().context("a value")?;
            secrets.push((format!("parameter {name}"), value.as_bytes().to_vec()));
        }
    }
    let operator = lab.operator.secret_access_key.clone();
    secrets.push((
        "the operator's secret key".to_owned(),
        operator.into_bytes(),
    ));
    let head = fs::read_to_string(lab.head_credentials()).context("the head node's credentials")?;
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(" = ")
            && name != "aws_access_key_id"
        {
            let what = format!("the head node's {name}");
            secrets.push((what, value.as_bytes().to_vec()));
        }
    }
    let count = secrets.len();
    let needles = secrets.into_iter().flat_map(|(what, bytes)| {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let forms = [STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes), hex];
        let mut forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
        forms.push(bytes);
        forms.into_iter().map(move |bytes| Needle {
            what: what.clone(),
            bytes,
        })
    });
    Ok((needles.collect(), count))
}

/// Journal, logs of slurmctld, munged, agent and emulator, spool, slurmctld's state with the jobs' scripts, consoles and
/// logs of all machines, what jobs printed: every file of the lab but the places that are the secrets' own.
fn left_in_files(lab: &Lab) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let own = BTreeSet::from([lab.head.munge_key_file(), lab.head_credentials()]);
    let mut left = Vec::new();
    let mut ahead = vec![lab.spec.state.clone(), lab.network.directory().clone()];
    while let Some(directory) = ahead.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("look into {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                ahead.push(path);
            } else if kind.is_file() && !own.contains(&path) && !is_program(&path) {
                left.push((path.display().to_string(), content(&path)?));
            }
        }
    }
    Ok(left)
}

/// Programs were there before the secrets.
fn is_program(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.ends_with(&["bin", "spillway"])
        || parts.last() == Some(&"bootstrap")
        || parts.contains(&"image")
}

fn content(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        // Its owner has just taken it away.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("read {}", path.display())),
    }
}

/// The functions' logs, the table, the functions' environment and what lies in dead-letter queues.
async fn left_in_the_cloud(lab: &Lab) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let root = lab.cloud.emulator.root();
    let mut left = Vec::new();
    let mut add = |place: String, answer: &Value| left.push((place, answer.to_string().into()));
    for function in crate::deploy::FUNCTIONS {
        let group = format!("/aws/lambda/{}-{function}", lab.spec.cluster);
        let body = json!({"logGroupName": group});
        let answer = root
            .json("logs", "Logs_20140328.FilterLogEvents", &body)
            .await?;
        ensure!(
            answer["events"]
                .as_array()
                .is_some_and(|events| !events.is_empty()),
            "{group} is empty"
        );
        add(group, &answer);
    }
    let table = lab.output("TableName")?;
    let body = json!({"TableName": table});
    let answer = root
        .json("dynamodb", "DynamoDB_20120810.Scan", &body)
        .await?;
    add(format!("table {table}"), &answer);
    for queue in DEAD_LETTER_QUEUES {
        let body = json!({
            "QueueUrl": lab.output(queue)?,
            "MaxNumberOfMessages": 10,
            "VisibilityTimeout": 0,
            "MessageAttributeNames": ["All"],
        });
        let answer = root.json("sqs", "AmazonSQS.ReceiveMessage", &body).await?;
        add(queue.to_owned(), &answer);
    }
    let path = "/2015-03-31/functions";
    let answer = root
        .rest("lambda", http::Method::GET, path, bytes::Bytes::new())
        .await?;
    add(
        "the functions' configuration".to_owned(),
        &Value::String(answer),
    );
    Ok(left)
}

fn contains(content: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    let mut begins = content
        .iter()
        .enumerate()
        .filter(|(_, byte)| *byte == first);
    begins.any(|(at, _)| content[at..].starts_with(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        for (content, found) in [
            (&b"key=s3cret;"[..], true),
            (b"s3cret", true),
            (b"s3cre", false),
            (b"", false),
        ] {
            assert_eq!(contains(content, b"s3cret"), found);
        }
    }
}
