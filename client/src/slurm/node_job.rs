//! The jobs that run on nodes that are about to go: they are sent a signal, or queued again.

use std::collections::BTreeSet;

use spillway_core::envelope::{JobNote, MAX_NOTE_JOBS};
use spillway_core::hostlist;
use spillway_core::name::{JobId, NodeName, Signal};
use tracing::{info, warn};

use super::{Slurm, SlurmError};

/// Jobs named in one command: as many as [`super::UPDATE_BATCH`] nodes, for the same reasons.
const JOB_BATCH: usize = 100;
/// What squeue prints of a job: words without blanks, in columns wider than they are.
const FORMAT: &str = "--Format=JobArrayID:24,State:16,BatchFlag:10,Requeue:10,StartTime:24";
/// States of a job that holds its nodes and has not ended.
const RUNNING: [&str; 6] = [
    "RUNNING",
    "CONFIGURING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
];

/// A job that runs on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeJob {
    /// `7`, `7_2` (task of an array) or `7+1` (component of a heterogeneous job).
    pub id: JobId,
    /// When this run of it began, Unix seconds.
    pub start_seconds: u64,
    /// It has a batch script: sbatch started it, and not srun or salloc.
    is_batch: bool,
    /// Its user lets it be queued again.
    may_requeue: bool,
}

impl NodeJob {
    /// Reads a line of squeue's; none if the job does not run.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[id, state, batch, requeue, start] = &words[..] else {
            return None;
        };
        RUNNING.contains(&state).then_some(())?;
        Some(Self {
            id: JobId::new(id).ok()?,
            start_seconds: start.parse().unwrap_or(0),
            is_batch: batch == "1",
            may_requeue: requeue == "1",
        })
    }

    /// What `scontrol requeue` takes for it: of a heterogeneous job only the whole, by its leader.
    fn requeued_as(&self) -> Option<JobId> {
        match self.id.as_str().split_once('+') {
            // Only the leader has the script; scontrol refuses if there is none.
            Some((leader, _)) => JobId::new(leader).ok().filter(|_| self.may_requeue),
            None => (self.is_batch && self.may_requeue).then(|| self.id.clone()),
        }
    }
}

impl Slurm {
    /// The jobs that run on any of these nodes, each once.
    pub async fn jobs_on(&self, nodes: &[&NodeName]) -> Result<BTreeSet<NodeJob>, SlurmError> {
        let nodes = format!("--nodelist={}", hostlist::fold(nodes));
        let text = self
            .run("squeue", &["--noheader", "--all", &nodes, FORMAT])
            .await?;
        Ok(text.lines().filter_map(NodeJob::parse).collect())
    }

    /// Sends a signal to the batch scripts of jobs and to their steps, on all their nodes.
    ///
    /// As `sbatch --signal=B:SIG` does to the script and `--signal=SIG` to the steps, for which of them a user has
    /// prepared cannot be asked. Programs that a script starts without srun get it from the script or not at all: with
    /// `scancel --full` they would, and one that is not prepared would take the script's trap with it.
    pub async fn signal(&self, jobs: &[&NodeJob], signal: &Signal) -> Result<(), SlurmError> {
        let signal = format!("--signal={signal}");
        let batch: Vec<&NodeJob> = jobs.iter().copied().filter(|job| job.is_batch).collect();
        for (jobs, to_script) in [(&batch[..], true), (jobs, false)] {
            for jobs in jobs.chunks(JOB_BATCH) {
                let mut words = vec!["--quiet", signal.as_str()];
                words.extend(to_script.then_some("--batch"));
                words.extend(jobs.iter().map(|job| job.id.as_str()));
                match self.run("scancel", &words).await {
                    // One has ended meanwhile; the others have it.
                    Err(SlurmError::Refused { reason, .. }) => info!(?words, "{reason}"),
                    told => drop(told?),
                }
            }
        }
        Ok(())
    }

    /// Queues the batch jobs again that run on these nodes, and says so in their `AdminComment`. One that was queued
    /// again a moment ago, for another of its nodes, runs here no more: slurmctld's own word is what keeps it from
    /// being queued twice, also after a crash of ours or its.
    pub async fn requeue_jobs_on(
        &self,
        nodes: &[&NodeName],
        reason: &str,
    ) -> Result<(), SlurmError> {
        let jobs = self.jobs_on(nodes).await?;
        let (fit, left): (Vec<_>, Vec<_>) =
            jobs.iter().partition(|job| job.requeued_as().is_some());
        if !left.is_empty() {
            let left: Vec<&str> = left.iter().map(|job| job.id.as_str()).collect();
            warn!(jobs = left.join(","), "cannot be queued again: {reason}");
        }
        let fit: BTreeSet<JobId> = fit.iter().filter_map(|job| job.requeued_as()).collect();
        let fit: Vec<JobId> = fit.into_iter().collect();
        for jobs in fit.chunks(JOB_BATCH.min(MAX_NOTE_JOBS)) {
            self.requeue(jobs).await?;
            let note = JobNote {
                jobs: jobs.to_vec(),
                text: reason.to_owned(),
            };
            if let Err(error) = self.remark(&note).await {
                warn!(jobs = ?note.jobs, "jobs were not told why they are queued again: {error}");
            }
        }
        Ok(())
    }

    /// Of several of which one is refused, each by itself: one that waits already is refused then and stays as it is.
    async fn requeue(&self, jobs: &[JobId]) -> Result<(), SlurmError> {
        let ids: Vec<&str> = jobs.iter().map(JobId::as_str).collect();
        let ids = ids.join(",");
        match self.run("scontrol", &["requeue", &ids]).await {
            Err(SlurmError::Refused { .. }) if jobs.len() > 1 => {
                for job in jobs.chunks(1) {
                    Box::pin(self.requeue(job)).await?;
                }
            }
            Err(SlurmError::Refused { reason, .. }) => {
                warn!(job = ids, "not queued again: {reason}");
            }
            told => {
                told?;
                info!(jobs = ids, "queued again");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requeued_as(line: &str) -> Option<String> {
        let job = NodeJob::parse(line)?;
        Some(
            job.requeued_as()
                .map_or("left".to_owned(), |id| id.to_string()),
        )
    }

    #[test]
    fn which_jobs_are_queued_again() {
        for (line, expected) in [
            ("7 RUNNING 1 1 1795820242", Some("7")),
            ("7_2 CONFIGURING 1 1 1795820242", Some("7_2")),
            ("7 SUSPENDED 1 1 1795820242", Some("7")),
            // --no-requeue; srun; both.
            ("7 RUNNING 1 0 1795820242", Some("left")),
            ("7 RUNNING 0 1 1795820242", Some("left")),
            ("7 RUNNING 0 0 N/A", Some("left")),
            // Parts of a heterogeneous job go together.
            ("11+0 RUNNING 1 1 1795820242", Some("11")),
            ("11+1 RUNNING 0 1 1795820242", Some("11")),
            // Those that have left.
            ("7 COMPLETING 1 1 1795820242", None),
            ("7 PENDING 1 1 N/A", None),
            ("7 COMPLETED 1 1 1795820242", None),
            ("slurm_load_jobs error", None),
        ] {
            assert_eq!(requeued_as(line).as_deref(), expected, "{line}");
        }
    }
}
