//! `spillway apply`: one sealed envelope from SSM Run Command, applied as SlurmUser. SSM's agent runs it as root
//! and gives the envelope in the environment; nothing of that is looked at before root is given up.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use spillway_core::config::ClientConfig;
use spillway_core::envelope::MAX_SEALED_BYTES;
use spillway_core::message::UpdateOutcome;

use super::{EXIT_FAILED, EXIT_OK, output, runtime};
use crate::aws::sqs::Sqs;
use crate::callback::{
    AcknowledgeError, Answer, Arrival, Keeper, Outcome, Receiver, Refusal, refused,
};
use crate::config::{file_beside, load_client};
use crate::privilege;
use crate::slurm::{Slurm, conf};
use crate::spool;

/// What SSM calls the document's parameter `Envelope` in the environment (`interpolationType: ENV_VAR`).
const VARIABLE: &str = "SSM_Envelope";
/// All of it; the document lets a command run for 30 s.
const TIME_LIMIT: Duration = Duration::from_secs(27);
/// How long to wait while the agent or another command applies an envelope.
const TURN_PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to tell the control plane.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(8);
/// SSM keeps the first 24,000 characters of what a command prints.
const MAX_PRINTED_CHARS: usize = 23_000;

/// Options of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// Read the sealed envelope from standard input instead of the environment
    #[arg(long)]
    stdin: bool,
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does it, and prints one line of JSON: what became of each update, or why nothing did.
pub fn run(arguments: &ApplyArguments) -> anyhow::Result<u8> {
    let slurm_conf = conf::find();
    let user = conf::slurm_user(&slurm_conf).context("cannot tell who SlurmUser is")?;
    privilege::become_user(&user)?;
    output::start_log();
    let sealed = read_envelope(arguments.stdin)?;
    let file = arguments.config.clone();
    let file = file.unwrap_or_else(|| file_beside(Some(&slurm_conf)));
    let config = load_client(&file)?;
    spool::check_user(&config.spool_directory)?;
    let arrival = if arguments.stdin {
        Arrival::ByHand
    } else if config.callback.roads.has_ssm() {
        let host = nix::unistd::gethostname().context("this machine has no name")?;
        Arrival::Ssm {
            host: host.to_string_lossy().into_owned(),
        }
    } else {
        bail!("roads in [callback] is \"queue\": updates by SSM are not taken");
    };
    let slurm = Slurm::new(&config.slurm).with_conf(slurm_conf);
    let report = runtime()?.block_on(async {
        let work = async {
            let sqs = Sqs::connect(&config).await?;
            let receiver = Receiver::open(&config, &file, Keeper::Guest, slurm, sqs)?;
            take(&receiver, &config, arrival, &sealed).await
        };
        match tokio::time::timeout(TIME_LIMIT, work).await {
            Ok(report) => report,
            Err(_) => bail!("not done within {} s", TIME_LIMIT.as_secs()),
        }
    })?;
    output::print_line(&report.line)?;
    match report.trouble {
        None => Ok(EXIT_OK),
        Some(trouble) => {
            eprintln!("spillway: {trouble}");
            Ok(EXIT_FAILED)
        }
    }
}

/// What is printed.
struct Report {
    /// Standard output.
    line: String,
    /// What was not done.
    trouble: Option<String>,
}

/// The sealed text, bounded and of the alphabet of a seal; more is not asked of it here.
fn read_envelope(from_stdin: bool) -> anyhow::Result<String> {
    let text = if from_stdin {
        let mut text = String::new();
        // One more than may be: the end must be seen.
        let limit = MAX_SEALED_BYTES as u64 + 2;
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        text.trim_end().to_owned()
    } else {
        let text = std::env::var_os(VARIABLE).with_context(|| {
            format!("{VARIABLE} is not set: SSM's agent sets it; a person uses --stdin")
        })?;
        text.into_string()
            .map_err(|_| anyhow::anyhow!("the envelope is no text"))?
    };
    check_form(&text)?;
    Ok(text)
}

fn check_form(text: &str) -> anyhow::Result<()> {
    if text.len() > MAX_SEALED_BYTES {
        bail!("the envelope is longer than {MAX_SEALED_BYTES} characters");
    }
    let is_of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_of_alphabet) {
        bail!("the envelope is empty or has characters other than A-Z, a-z, 0-9, '.', '_' and '-'");
    }
    Ok(())
}

async fn take(
    receiver: &Receiver,
    config: &ClientConfig,
    arrival: Arrival,
    sealed: &str,
) -> anyhow::Result<Report> {
    let mut outcomes = receiver.receive(&[(arrival, sealed)], TURN_PATIENCE).await;
    match outcomes.pop().context("one envelope has one outcome")? {
        Outcome::Answered(answer) => Ok(acknowledge(receiver, config, &answer).await),
        Outcome::Refused(refusal) => Ok(refuse(config, &refusal)),
        Outcome::Failed(error) => Err(error).context("the envelope cannot be applied now"),
    }
}

fn refuse(config: &ClientConfig, refusal: &Refusal) -> Report {
    note(config, refusal.reason);
    Report {
        line: json!({ "refused": refusal.reason, "reason": refusal.words }).to_string(),
        trouble: Some(format!("refused ({}): {}", refusal.reason, refusal.words)),
    }
}

/// For the agent, which counts.
fn note(config: &ClientConfig, reason: spillway_core::message::RefusalReason) {
    if let Err(error) = refused::leave_note(&config.spool_directory, reason) {
        eprintln!("spillway: the refusal is not counted: {error}");
    }
}

async fn acknowledge(receiver: &Receiver, config: &ClientConfig, answer: &Answer) -> Report {
    if answer.replayed {
        note(config, spillway_core::message::RefusalReason::Replayed);
    }
    let told = tokio::time::timeout(ACKNOWLEDGE_LIMIT, receiver.acknowledge(answer)).await;
    let (acknowledged, trouble) = match told {
        Ok(Ok(())) => (true, None),
        Ok(Err(AcknowledgeError::Ledger(error))) => (true, Some(error.to_string())),
        Ok(Err(error)) => (false, Some(error.to_string())),
        Err(_) => (
            false,
            Some(format!("nothing within {} s", ACKNOWLEDGE_LIMIT.as_secs())),
        ),
    };
    Report {
        line: line(answer, acknowledged),
        trouble: trouble.map(|why| format!("the envelope is not acknowledged: {why}")),
    }
}

/// The results, or their numbers where they are too many to print.
fn line(answer: &Answer, acknowledged: bool) -> String {
    let with = |results: Value| {
        json!({
            "envelope_id": answer.envelope_id,
            "repeated": answer.repeated,
            "replayed": answer.replayed,
            "acknowledged": acknowledged,
            "results": results,
        })
        .to_string()
    };
    let whole = with(json!(answer.results));
    if whole.chars().count() <= MAX_PRINTED_CHARS {
        return whole;
    }
    let count = |is: fn(&UpdateOutcome) -> bool| {
        let results = answer.results.iter();
        results.filter(|result| is(&result.outcome)).count()
    };
    with(json!({
        "applied": count(|outcome| matches!(outcome, UpdateOutcome::Applied)),
        "stale": count(|outcome| matches!(outcome, UpdateOutcome::Stale { .. })),
        "refused": count(|outcome| matches!(outcome, UpdateOutcome::Refused { .. })),
    }))
}

#[cfg(test)]
mod tests {
    use spillway_core::message::UpdateResult;
    use spillway_core::name::Generation;

    use super::*;

    #[test]
    fn only_the_alphabet_of_a_seal_and_no_more_than_fits() {
        check_form("spillway1.0123456789abcdef.AZaz09_-.x").unwrap();
        check_form(&"x".repeat(MAX_SEALED_BYTES)).unwrap();
        for wrong in [
            "", "a b", "a\n", "$(id)", "a;b", "a'b", "é", "a=", "a/b", "\0",
        ] {
            check_form(wrong).unwrap_err();
        }
        check_form(&"x".repeat(MAX_SEALED_BYTES + 1)).unwrap_err();
    }

    #[test]
    fn what_is_printed_fits_into_what_ssm_keeps() {
        let result = |number| UpdateResult {
            nodes: format!("cloud{number}"),
            generation: Generation::new(7).unwrap(),
            number: 1,
            outcome: UpdateOutcome::Stale {
                reason: "é".repeat(100),
            },
        };
        let mut answer = Answer {
            envelope_id: "one".to_owned(),
            results: vec![result(1)],
            acknowledged: false,
            repeated: false,
            replayed: false,
        };
        let printed: Value = serde_json::from_str(&line(&answer, true)).unwrap();
        assert_eq!(printed["results"][0]["nodes"], "cloud1");
        answer.results = (0..1000).map(result).collect();
        let printed = line(&answer, true);
        assert!(printed.chars().count() <= MAX_PRINTED_CHARS);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["results"]["stale"], 1000);
    }
}
