//! SLURM_RESUME_FILE: which jobs the nodes are for. Keys by version (slurmctld's `power_save.c`):
//! 22.05 writes `all_nodes` and per job `job_id`, `nodes`; 23.02 and later `all_nodes_resume`,
//! `nodes_resume`, `nodes_alloc`, `partition`, `features` and more. Absent where slurmctld lacks
//! json-c. Unknown keys are taken.

use std::borrow::Cow;
use std::num::NonZeroU32;

use serde::Deserialize;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::RequestJob;

use crate::jobs_file;

const VARIABLE: &str = "SLURM_RESUME_FILE";

#[derive(Deserialize)]
struct ResumeFile<'a> {
    #[serde(borrow, default)]
    jobs: Vec<ResumeJob<'a>>,
}

#[derive(Deserialize)]
struct ResumeJob<'a> {
    job_id: NonZeroU32,
    #[serde(borrow, alias = "nodes")]
    nodes_resume: Cow<'a, str>,
    #[serde(borrow, default)]
    nodes_alloc: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    partition: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    features: Option<Cow<'a, str>>,
}

/// A job and the names of its nodes that this call resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What the message says of it.
    pub job: RequestJob,
    /// `nodes_resume`, expanded.
    pub nodes: Vec<String>,
}

/// Reads the file; none if Slurm gave none.
pub fn read() -> Result<Option<String>, String> {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    std::fs::read_to_string(&path)
        .map(Some)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The jobs of the file, joined with what the agent's jobs file knows of them.
pub fn jobs(text: &str, jobs_text: &str) -> Result<Vec<Job>, String> {
    let file: ResumeFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let known = jobs_file::parse(jobs_text);
    file.jobs
        .into_iter()
        .map(|job| {
            let nodes = Hostlist::parse(&job.nodes_resume)
                .map_err(|error| format!("job {}: {error}", job.job_id))?;
            let facts = known.get(&job.job_id.get()).copied().unwrap_or_default();
            let own = |text: Cow<str>| text.into_owned();
            let job = RequestJob {
                job_id: job.job_id.into(),
                nodes_resume: own(job.nodes_resume),
                nodes_alloc: job.nodes_alloc.map(own),
                partition: job
                    .partition
                    .map(own)
                    .or(facts.partition.map(str::to_owned)),
                features: job.features.map(own).or(facts.features.map(str::to_owned)),
                user: facts.user.map(str::to_owned),
                account: facts.account.map(str::to_owned),
            };
            Ok(Job {
                job,
                nodes: nodes.iter().collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS_FILE: &str = "1\tada\tphysics\tcloud\tbig\n140814\tbob\tchem\tother\tsmall\n";

    #[test]
    fn the_file_of_22_05() {
        let text = r#"{"jobs":[{"job_id":1,"nodes":"aws-[0-1]"}],"all_nodes":"aws-[0-1]"}"#;
        let jobs = jobs(text, JOBS_FILE).unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].nodes, ["aws-0", "aws-1"]);
        let job = &jobs[0].job;
        assert_eq!(job.job_id.as_str(), "1");
        assert_eq!(job.nodes_alloc, None);
        assert_eq!(job.partition.as_deref(), Some("cloud"));
        assert_eq!(job.features.as_deref(), Some("big"));
        assert_eq!(job.user.as_deref(), Some("ada"));
        assert_eq!(job.account.as_deref(), Some("physics"));
    }

    #[test]
    fn the_file_of_26_05_knows_better_than_the_jobs_file() {
        let text = r#"{"jobs":[{"exclusive":"NO","extra":null,"job_id":140814,"priority":123,"features":"c1,\"c2\"","nodes_alloc":"cloud[1-4]","nodes_resume":"cloud[1-3]","oversubscribe":"OK","partition":"cloud","reservation":null}],"all_nodes_resume":"cloud[1-3,7-8]"}"#;
        let jobs = jobs(text, JOBS_FILE).unwrap();
        let job = &jobs[0].job;
        assert_eq!(job.nodes_resume, "cloud[1-3]");
        assert_eq!(job.nodes_alloc.as_deref(), Some("cloud[1-4]"));
        assert_eq!(job.partition.as_deref(), Some("cloud"));
        assert_eq!(job.features.as_deref(), Some("c1,\"c2\""));
        assert_eq!(job.user.as_deref(), Some("bob"));
    }

    #[test]
    fn what_it_cannot_read_is_named() {
        assert!(jobs("{", "").unwrap_err().contains("EOF"));
        let bad = r#"{"jobs":[{"job_id":7,"nodes":"n[1-2"}]}"#;
        assert!(jobs(bad, "").unwrap_err().starts_with("job 7: "));
    }
}
