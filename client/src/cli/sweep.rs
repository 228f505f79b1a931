//! `spillway sweep`: asks for a sweep now, or only what it would do, and shows what it found.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::tz::TimeZone;
use spillway_core::config::ClientConfig;
use spillway_core::message::{Message, SweepOrder, SweepQueueBody};
use spillway_core::sweep::{Finding, Heal, LAST_REPORT, SweepReport};

use super::operator::{HINT, OperatorAws, SiteArguments};
use super::{EXIT_OK, output, runtime};
use crate::aws::dynamodb::TableError;
use crate::aws::home;
use crate::local_time;

/// How long a report is waited for: a sweep that finds another one at work comes again after a minute.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often the table is asked.
const POLL: Duration = Duration::from_secs(1);
/// How often a person is told that it still waits.
const PROGRESS: Duration = Duration::from_secs(15);

/// Options of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArguments {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Look at every item of the table, not only at nodes that something goes on with
    #[arg(long)]
    whole: bool,
    /// Show what the last sweep found, and ask for none
    #[arg(long, conflicts_with_all = ["dry_run", "whole"])]
    last: bool,
    #[command(flatten)]
    site: SiteArguments,
}

/// Does it.
pub fn run(arguments: &SweepArguments) -> anyhow::Result<u8> {
    let site = arguments.site.load()?.client;
    let report = runtime()?.block_on(report(&site, arguments))?;
    let text = if arguments.site.json {
        serde_json::to_string(&report)?
    } else {
        render(&report, arguments.last, &local_time::zone())
    };
    output::print_line(&text)?;
    Ok(EXIT_OK)
}

async fn report(site: &ClientConfig, arguments: &SweepArguments) -> anyhow::Result<SweepReport> {
    let aws = OperatorAws::connect(site).await?;
    if arguments.last {
        let last = read(&aws, site, LAST_REPORT).await;
        let last = last.with_context(|| format!("cannot read the last report: {HINT}"))?;
        return last
            .context("no sweep has reported yet: is the stack deployed, and its schedule on?");
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let order = SweepOrder {
        report_id: Some(id.clone()),
        dry_run: arguments.dry_run,
        whole: arguments.whole,
    };
    let message = Message::new(site.cluster.clone(), SweepQueueBody::Sweep(order));
    let queue = home::queue(site, "sweep")?;
    let sent = aws.queues.send(&queue, &message.to_json()).await;
    sent.with_context(|| format!("cannot ask for a sweep: {HINT}"))?;
    eprintln!("spillway: asked for a sweep, waiting for its report");
    wait(&aws, site, &id).await
}

async fn wait(aws: &OperatorAws, site: &ClientConfig, id: &str) -> anyhow::Result<SweepReport> {
    let begun = Instant::now();
    let mut said = begun;
    while begun.elapsed() < PATIENCE {
        let found = read(aws, site, id).await;
        if let Some(report) = found.with_context(|| format!("cannot read the report: {HINT}"))? {
            return Ok(report);
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!(
                "spillway: no report yet after {} s",
                begun.elapsed().as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
    bail!(
        "no report came within {} s. The sweep may still come: look with `spillway sweep --last`. If it never does, look at \
         the function's log and at the dead-letter queue of the sweep queue",
        PATIENCE.as_secs()
    )
}

/// The report of this name, once there is one.
async fn read(
    aws: &OperatorAws,
    site: &ClientConfig,
    name: &str,
) -> Result<Option<SweepReport>, TableError> {
    let key = format!("SWEEP-REPORT#{}#{name}", site.cluster);
    let kept: Option<Option<SweepReport>> = aws.table.record(&key).await?;
    Ok(kept.flatten())
}

/// The report as a table and a summary.
fn render(report: &SweepReport, is_last: bool, zone: &TimeZone) -> String {
    let done = match (report.dry_run, is_last) {
        (true, _) => "WOULD BE DONE",
        // It is kept before the sweep sets to it.
        (false, true) => "SET OUT TO DO",
        (false, false) => "DONE",
    };
    let header = ["WHAT", "NODE", "INSTANCE", done, "REASON"].map(str::to_owned);
    let rows: Vec<[String; 5]> = report.findings.iter().map(row).collect();
    let mut text = if rows.is_empty() {
        String::new()
    } else {
        table(&header, &rows) + "\n\n"
    };
    text += &summary(report, zone);
    text
}

fn row(finding: &Finding) -> [String; 5] {
    let none = || "-".to_owned();
    let what = serde_json::to_value(finding.what).ok();
    let what = what.and_then(|what| what.as_str().map(str::to_owned));
    [
        what.unwrap_or_default(),
        finding.node.as_ref().map_or_else(none, ToString::to_string),
        finding
            .instance
            .as_ref()
            .map_or_else(none, ToString::to_string),
        finding.heal.as_ref().map_or("-", heal_words).to_owned(),
        finding.reason.trim_start_matches("spillway: ").to_owned(),
    ]
}

/// What is done, in a few words.
pub fn heal_words(heal: &Heal) -> &'static str {
    match heal {
        Heal::End => "instance terminated",
        Heal::EndAgain => "instance terminated again",
        Heal::Fail => "node given up",
        Heal::Drain { .. } => "node drained",
        Heal::LetGo { .. } => "instance let go",
        Heal::Recover { .. } => "node recovered in Slurm",
        Heal::Expire { .. } => "node failed: too late",
        Heal::TellAgain { .. } => "slurmctld told again",
        Heal::GoOn { .. } => "launch taken up again",
    }
}

/// Columns as wide as their widest entry; the last one is not padded.
fn table(header: &[String; 5], rows: &[[String; 5]]) -> String {
    let all = || std::iter::once(header).chain(rows);
    let width = |column: usize| {
        all()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 5]| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:<width$}  "));
        padded.collect::<String>() + &row[4]
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

fn summary(report: &SweepReport, zone: &TimeZone) -> String {
    let acted = report
        .findings
        .iter()
        .filter(|finding| finding.heal.is_some())
        .count();
    let slurm = match report.slurm_age_ms {
        Some(age_ms) => format!(
            "slurmctld's node states were {} old",
            local_time::duration(age_ms)
        ),
        None => {
            "slurmctld's node states are missing, so only the cloud's side was healed".to_owned()
        }
    };
    let found = match (report.found, report.dry_run) {
        (0, _) => "Nothing is wrong.".to_owned(),
        (found, true) => format!("{found} found, {acted} would be acted on now."),
        (found, false) => format!("{found} found, {acted} acted on."),
    };
    let mut text = format!(
        "{}{}: {} instances, {} nodes in use; {slurm}. {found}",
        local_time::absolute(report.at_ms, zone),
        if report.dry_run { ", dry run" } else { "" },
        report.instances,
        report.nodes
    );
    if report.found > report.findings.len() {
        let _ = write!(text, " The first {} are shown.", report.findings.len());
    }
    if acted < report.findings.len() {
        text += "\nWhat is not acted on is held, cannot be healed from here, or is looked at again by the next sweep before \
                 anything is done.";
    }
    if let Some(why) = &report.stopped {
        let _ = write!(text, "\nNo instance was taken away: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use spillway_core::name::{InstanceId, NodeName};
    use spillway_core::sweep::FindingKind;

    use super::*;

    fn finding(what: FindingKind, node: Option<&str>, reason: &str, heal: Option<Heal>) -> Finding {
        Finding {
            what,
            node: node.map(|node| NodeName::new(node).unwrap()),
            instance: Some(InstanceId::new("i-0123456789abcdef0").unwrap()),
            reason: reason.to_owned(),
            heal,
        }
    }

    #[test]
    fn a_report_is_a_table_and_a_summary() {
        let mut report = SweepReport {
            at_ms: 1_767_225_600_000,
            dry_run: true,
            instances: 12,
            nodes: 10,
            slurm_age_ms: Some(14_000),
            findings: vec![
                finding(
                    FindingKind::Orphan,
                    None,
                    "i-0123456789abcdef0 serves no node",
                    Some(Heal::End),
                ),
                finding(
                    FindingKind::Down,
                    Some("cloud-7"),
                    "spillway: slurmctld holds the node down (Not responding)",
                    None,
                ),
            ],
            found: 2,
            stopped: None,
        };
        insta::assert_snapshot!("dry_run", render(&report, false, &TimeZone::UTC));
        report.dry_run = false;
        report.stopped = Some("14 of 20 instances would go, 20 % and 10 may".to_owned());
        insta::assert_snapshot!("stopped", render(&report, true, &TimeZone::UTC));
        report.findings.clear();
        (report.found, report.stopped, report.slurm_age_ms) = (0, None, None);
        insta::assert_snapshot!("nothing", render(&report, false, &TimeZone::UTC));
    }
}
