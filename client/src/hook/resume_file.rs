//! SLURM_RESUME_FILE: which jobs the nodes are for. Keys by version (slurmctld's `power_save.c`):
//! 22.05 writes `all_nodes` and per job `job_id`, `nodes`; 23.02 and later `all_nodes_resume`,
//! `nodes_resume`, `nodes_alloc`, `partition`, `features` and more. Absent where slurmctld lacks
//! json-c. Unknown keys are taken.

use std::borrow::Cow;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize, Serializer};
use spillway_core::hostlist::{Hostlist, HostlistError};

use crate::jobs_file::JobsFile;

const VARIABLE: &str = "SLURM_RESUME_FILE";

#[derive(Deserialize)]
struct ResumeFile<'a> {
    #[serde(borrow, default)]
    jobs: Vec<Job<'a>>,
}

/// A job as the file says it, joined with what the agent knew of it. Written, it is a [`RequestJob`];
/// its texts stay where they were read, for slurmctld waits while 10,000 of them go by.
///
/// [`RequestJob`]: spillway_core::message::RequestJob
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the file")]
pub struct Job<'a> {
    /// Slurm's job id; a text in the message.
    #[serde(serialize_with = "as_text")]
    pub job_id: NonZeroU32,
    /// Hostlist: the job's nodes that this call resumes.
    #[serde(borrow, alias = "nodes")]
    pub nodes_resume: Text<'a>,
    /// Hostlist: all nodes of the job.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub nodes_alloc: Option<Text<'a>>,
    /// The file's, else the jobs file's.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Text<'a>>,
    /// The file's, else the jobs file's.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Text<'a>>,
    /// From the jobs file.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text<'a>>,
    /// From the jobs file.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub account: Option<Text<'a>>,
    /// `nodes_resume`, parsed, unless it is a single name.
    #[serde(skip)]
    pub hostlist: Option<Hostlist>,
}

/// A text of the file, copied only where it has escapes. (serde borrows a `Cow`, but not one inside of
/// an `Option`.)
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Job<'_> {
    /// Keys, quotes, commas and the job id of a job as JSON.
    const FRAME_BYTES: usize = 120;

    /// The names of its nodes that this call resumes.
    pub fn nodes(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let single = match self.hostlist {
            None => Some(Cow::Borrowed(&*self.nodes_resume.0)),
            Some(_) => None,
        };
        let several = self.hostlist.iter().flatten().map(Cow::Owned);
        single.into_iter().chain(several)
    }

    /// At least as many bytes as it has as JSON, and seldom many more.
    pub fn json_bytes(&self) -> usize {
        let facts = [
            &self.nodes_alloc,
            &self.partition,
            &self.features,
            &self.user,
            &self.account,
        ];
        let texts = facts.into_iter().flatten().chain([&self.nodes_resume]);
        Self::FRAME_BYTES + texts.map(Text::json_bytes).sum::<usize>()
    }
}

impl Text<'_> {
    /// Its bytes between the quotes.
    fn json_bytes(&self) -> usize {
        let escaped = |byte| match byte {
            0..=0x1f => r"\u0000".len(),
            b'"' | b'\\' => 2,
            _ => 1,
        };
        self.0.bytes().map(escaped).sum()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn as_text<S: Serializer>(job_id: &NonZeroU32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(job_id)
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
pub fn jobs<'a>(text: &'a str, jobs_text: &'a str) -> Result<Vec<Job<'a>>, String> {
    let file: ResumeFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let known = JobsFile::parse(jobs_text);
    let mut jobs = file.jobs;
    for job in &mut jobs {
        job.hostlist = parse_nodes(&job.nodes_resume.0)
            .map_err(|error| format!("job {}: {error}", job.job_id))?;
        let facts = known.get(job.job_id.get()).unwrap_or_default();
        job.partition = job.partition.take().or(facts.partition.map(Text::from));
        job.features = job.features.take().or(facts.features.map(Text::from));
        job.user = facts.user.map(Text::from);
        job.account = facts.account.map(Text::from);
    }
    Ok(jobs)
}

/// The expression, unless it is a single name as it stands, which most are when there are many.
fn parse_nodes(expression: &str) -> Result<Option<Hostlist>, HostlistError> {
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !expression.is_empty() && expression.bytes().all(of_a_name) {
        return Ok(None);
    }
    Hostlist::parse(expression).map(Some)
}

#[cfg(test)]
mod tests {
    use spillway_core::message::RequestJob;

    use super::*;

    const JOBS_FILE: &str = "1\tada\tphysics\tcloud\tbig\n140814\tbob\tchem\tother\tsmall\n";

    /// The job as `launch` reads it; it may be no longer than was thought.
    fn as_read(job: &Job) -> RequestJob {
        let text = serde_json::to_string(job).unwrap();
        assert!(text.len() <= job.json_bytes(), "{text}");
        let read: RequestJob = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        read
    }

    #[test]
    fn the_file_of_22_05() {
        let text = r#"{"jobs":[{"job_id":1,"nodes":"aws-[0-1]"}],"all_nodes":"aws-[0-1]"}"#;
        let jobs = jobs(text, JOBS_FILE).unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].nodes().collect::<Vec<_>>(), ["aws-0", "aws-1"]);
        let job = as_read(&jobs[0]);
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
        let job = as_read(&jobs[0]);
        assert_eq!(job.nodes_resume, "cloud[1-3]");
        assert_eq!(job.nodes_alloc.as_deref(), Some("cloud[1-4]"));
        assert_eq!(job.partition.as_deref(), Some("cloud"));
        assert_eq!(job.features.as_deref(), Some("c1,\"c2\""));
        assert_eq!(job.user.as_deref(), Some("bob"));
    }

    #[test]
    fn a_single_name_and_texts_with_escapes() {
        let text =
            r#"{"jobs":[{"job_id":4294967295,"nodes_resume":"cloud-7","features":"\"\u0001\\"}]}"#;
        let jobs = jobs(text, JOBS_FILE).unwrap();
        assert_eq!(jobs[0].nodes().collect::<Vec<_>>(), ["cloud-7"]);
        let job = as_read(&jobs[0]);
        assert_eq!(job.job_id.as_str(), "4294967295");
        assert_eq!(job.features.as_deref(), Some("\"\u{1}\\"));
        assert_eq!((job.partition, job.user), (None, None));
    }

    #[test]
    fn what_it_cannot_read_is_named() {
        assert!(jobs("{", "").unwrap_err().contains("EOF"));
        let bad = r#"{"jobs":[{"job_id":7,"nodes":"n[1-2"}]}"#;
        assert!(jobs(bad, "").unwrap_err().starts_with("job 7: "));
    }
}
