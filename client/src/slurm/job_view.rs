//! What slurmctld says of one job and of one node, for a person.

use std::collections::HashMap;

use spillway_core::name::{JobId, NodeName};

use super::{NodeRow, Slurm, SlurmError, by_name};

/// A job as `scontrol show job` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// `JobState`.
    pub state: String,
    /// `Reason`, `None` if there is none.
    pub reason: String,
    /// Hostlist of its nodes; empty while it has none.
    pub nodes: String,
    /// Who submitted it.
    pub user: Option<String>,
    /// Unix milliseconds.
    pub submitted_ms: Option<u64>,
    /// When it started last, or will, Unix milliseconds.
    pub started_ms: Option<u64>,
    /// How often it was queued again.
    pub restarts: u32,
    /// `AdminComment`.
    pub admin_comment: Option<String>,
}

impl JobView {
    /// Reads a line of `scontrol show job --oneliner`; none if it is not about a job.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with("JobId=").then_some(())?;
        let value = |key: &str| {
            let (_, rest) = line.split_once(&format!(" {key}="))?;
            let value = rest.split_whitespace().next().unwrap_or_default();
            Some(value).filter(|value| !value.is_empty() && *value != "(null)")
        };
        let time_ms = |key| {
            value(key)?
                .parse::<u64>()
                .ok()
                .map(|seconds| seconds * 1000)
        };
        let user = value("UserId").map(|user| user.split('(').next().unwrap_or(user));
        Some(Self {
            state: value("JobState")?.to_owned(),
            reason: value("Reason").unwrap_or("None").to_owned(),
            nodes: value("NodeList").unwrap_or_default().to_owned(),
            user: user.map(str::to_owned),
            submitted_ms: time_ms("SubmitTime"),
            started_ms: time_ms("StartTime"),
            restarts: value("Restarts")
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
            admin_comment: comment(line),
        })
    }
}

/// Text with blanks: up to the next ` Word=`.
fn comment(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" AdminComment=")?;
    let is_key = |text: &str| {
        let word = text.split_whitespace().next().unwrap_or_default();
        let name = word.split_once('=').map_or("", |(name, _)| name);
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(char::is_alphanumeric)
    };
    let ends = rest
        .match_indices(' ')
        .find(|(at, _)| is_key(&rest[at + 1..]));
    let text = rest[..ends.map_or(rest.len(), |(at, _)| at)].trim();
    (!text.is_empty() && text != "(null)").then(|| text.to_owned())
}

impl Slurm {
    /// A job; none if slurmctld does not know it, or knows it no more. Of an array the first task that it shows.
    pub async fn job(&self, job: &JobId) -> Result<Option<JobView>, SlurmError> {
        let shown = self
            .run(
                "scontrol",
                &["show", "job", job.as_str(), "--oneliner", "--all"],
            )
            .await;
        match shown {
            Err(SlurmError::Refused { reason, .. }) if reason.contains("Invalid job id") => {
                Ok(None)
            }
            shown => Ok(shown?.lines().find_map(JobView::parse)),
        }
    }

    /// All nodes that slurmctld shows, by name: burst nodes and others.
    pub async fn every_node(&self) -> Result<HashMap<NodeName, NodeRow>, SlurmError> {
        Ok(by_name(self.nodes().await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_24_11() {
        let line = "JobId=7 JobName=sleep UserId=alice(1000) GroupId=alice(1000) MCS_label=N/A JobState=CONFIGURING \
                    Reason=None Dependency=(null) Restarts=1 SubmitTime=1790000000 StartTime=1790000060 EndTime=Unknown \
                    ReqNodeList=(null) ExcNodeList=(null) NodeList=cloud-[0-1] BatchHost=cloud-0 AdminComment=spillway: cloud-0: launched \
                    1 on-demand, for spot: a=b OverSubscribe=OK";
        let job = JobView::parse(line).unwrap();
        assert_eq!(
            (&*job.state, &*job.nodes, job.restarts),
            ("CONFIGURING", "cloud-[0-1]", 1)
        );
        assert_eq!(job.user.as_deref(), Some("alice"));
        assert_eq!(job.started_ms, Some(1_790_000_060_000));
        let comment = "spillway: cloud-0: launched 1 on-demand, for spot: a=b";
        assert_eq!(job.admin_comment.as_deref(), Some(comment));
    }

    #[test]
    fn a_job_that_waits_has_no_nodes() {
        let line = "JobId=8 JobState=PENDING Reason=Resources SubmitTime=1 StartTime=Unknown NodeList=(null) AdminComment=(null)";
        let job = JobView::parse(line).unwrap();
        assert_eq!(
            (&*job.nodes, job.admin_comment, job.started_ms),
            ("", None, None)
        );
        assert_eq!(JobView::parse("slurm_load_jobs error"), None);
    }
}
