//! `spillway hold` and `spillway release`: an instance that Spillway may not end, for as long as a person looks at it.

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use spillway_core::config::ClientConfig;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::plan::InstanceState;
use spillway_core::record::InstanceRecord;

use super::operator::{HINT, OperatorAws, SiteArguments};
use super::{EXIT_FAILED, EXIT_OK, output, runtime};
use crate::aws::dynamodb::Released;
use crate::aws::home;

/// Options of `hold` and `release`.
#[derive(Debug, Args)]
pub struct HoldArguments {
    /// Instance ids, such as i-0123456789abcdef0
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
    #[command(flatten)]
    site: SiteArguments,
}

/// What became of one instance.
#[derive(Debug, Serialize)]
struct Answer {
    instance_id: InstanceId,
    /// Whether it is protected now.
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<InstanceState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeName>,
    /// In words.
    said: String,
    /// It is not as asked for.
    failed: bool,
}

/// Protects instances.
pub fn hold(arguments: &HoldArguments) -> anyhow::Result<u8> {
    let (ids, site) = (ids(&arguments.instances)?, arguments.site.load()?.client);
    let answers = runtime()?.block_on(hold_all(&site, &ids))?;
    let undo = format!("spillway release {}", words(&ids));
    print(
        &answers,
        arguments.site.json,
        &[
            "While it is held, Spillway does not terminate it: not when Slurm lets its node go, not when the node fails or does \
         not join, not in a sweep. It still counts and costs.",
            "A hold does not stop EC2 from taking a spot instance, nor keep the node in Slurm, nor stop a person.",
            &format!("To undo it: {undo}"),
        ],
    )
}

/// Takes the protection back.
pub fn release(arguments: &HoldArguments) -> anyhow::Result<u8> {
    let (ids, site) = (ids(&arguments.instances)?, arguments.site.load()?.client);
    let answers = runtime()?.block_on(release_all(&site, &ids))?;
    print(&answers, arguments.site.json, &[])
}

fn words(ids: &[InstanceId]) -> String {
    let ids: Vec<&str> = ids.iter().map(InstanceId::as_str).collect();
    ids.join(" ")
}

/// All of them, before anything is done to the first.
fn ids(words: &[String]) -> anyhow::Result<Vec<InstanceId>> {
    let id = |word: &String| {
        InstanceId::new(word.as_str()).with_context(|| {
            format!(
                "{word:?} is no instance id (`spillway explain node NAME` shows the instance of a node)"
            )
        })
    };
    words.iter().map(id).collect()
}

async fn hold_all(site: &ClientConfig, ids: &[InstanceId]) -> anyhow::Result<Vec<Answer>> {
    let aws = OperatorAws::connect(site).await?;
    let mut answers = Vec::new();
    for id in ids {
        let arn = home::instance_arn(site, id)?;
        let held = aws.table.hold(&arn, id).await;
        let record = held.with_context(|| format!("cannot hold {id}: {HINT}"))?;
        answers.push(Answer {
            instance_id: id.clone(),
            held: true,
            said: held_words(&record),
            failed: record.state == InstanceState::Terminated,
            state: Some(record.state),
            node: record.node,
        });
    }
    Ok(answers)
}

fn held_words(record: &InstanceRecord) -> String {
    let id = &record.instance_id;
    match (record.state, &record.node) {
        (InstanceState::Paired, Some(node)) => format!("{id} is held. It serves {node}."),
        (InstanceState::Paired, None) => format!("{id} is held."),
        (InstanceState::Released, Some(node)) => {
            format!(
                "{id} is held. It served {node} and serves no node now; its end may be on its way."
            )
        }
        (InstanceState::Released, None) => format!("{id} is held. It serves no node."),
        (InstanceState::Terminated, _) => {
            format!("{id} was terminated before it was held: there is nothing left to protect.")
        }
    }
}

async fn release_all(site: &ClientConfig, ids: &[InstanceId]) -> anyhow::Result<Vec<Answer>> {
    let aws = OperatorAws::connect(site).await?;
    let mut answers = Vec::new();
    for id in ids {
        let arn = home::instance_arn(site, id)?;
        let released = aws.table.release(&arn).await;
        let released = released.with_context(|| format!("cannot release {id}: {HINT}"))?;
        answers.push(released_answer(id, released));
    }
    Ok(answers)
}

fn released_answer(id: &InstanceId, released: Released) -> Answer {
    let answer = |held, said, failed| Answer {
        instance_id: id.clone(),
        held,
        state: None,
        node: None,
        said,
        failed,
    };
    match released {
        Released::NotHeld => answer(false, format!("{id} was not held."), false),
        Released::HeldByTag => {
            let said = format!(
                "{id} is still held: it bears the tag {} in EC2. Remove the tag there; the next sweep sees it.",
                spillway_core::tag::HOLD
            );
            answer(true, said, true)
        }
        Released::Done(record) => {
            let what = match (record.state, &record.node) {
                (InstanceState::Paired, Some(node)) => format!("It serves {node} and goes on."),
                (InstanceState::Paired, None) => "It goes on.".to_owned(),
                (InstanceState::Released, _) => {
                    "It serves no node: the next sweeps terminate it, within a few minutes."
                        .to_owned()
                }
                (InstanceState::Terminated, _) => "It was terminated before.".to_owned(),
            };
            Answer {
                state: Some(record.state),
                node: record.node,
                ..answer(false, format!("{id} is held no longer. {what}"), false)
            }
        }
    }
}

fn print(answers: &[Answer], json: bool, after: &[&str]) -> anyhow::Result<u8> {
    if json {
        output::print_line(&serde_json::to_string(answers)?)?;
    } else {
        for answer in answers {
            output::print_line(&answer.said)?;
        }
        for line in after {
            output::print_line(line)?;
        }
    }
    let has_failed = answers.iter().any(|answer| answer.failed);
    Ok(if has_failed { EXIT_FAILED } else { EXIT_OK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_instance_id_is_said_so() {
        let error = ids(&["i-0123456789abcdef0".to_owned(), "cloud-7".to_owned()]).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.starts_with("\"cloud-7\" is no instance id"), "{said}");
        assert!(said.contains("8 or 17 hexadecimal digits"), "{said}");
    }

    #[test]
    fn a_tag_is_not_released_here() {
        let id = InstanceId::new("i-12345678").unwrap();
        let answer = released_answer(&id, Released::HeldByTag);
        assert!(answer.held && answer.failed);
        assert!(answer.said.contains("spillway:hold"), "{}", answer.said);
    }
}
