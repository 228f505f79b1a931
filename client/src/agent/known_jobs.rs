//! Completes a resume request with what slurmctld knows of its jobs. Slurm calls ResumeProgram within a second
//! of a job's submission, most often before the jobs file has seen it; without this an instance would not bear
//! its job's user and account.

use std::borrow::Cow;
use std::time::Duration;

use spillway_core::message::{Message, RequestJob, ResumeQueueBody};
use spillway_core::name::JobId;
use tracing::debug;

use super::Agent;
use crate::jobs_file::JobsFile;
use crate::spool::Target;

/// The most jobs that slurmctld is asked for. An instance is tagged for a job only if it serves no other, and a
/// request of more jobs than this comes from a queue that has waited: the jobs file knows those.
const MAX_ASKED_JOBS: usize = 50;

/// How long the request waits for the answer: tags are worth less than the time of a job.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest user or account that is believed: Linux allows 32 bytes in a user's name, and what a site adds to
/// it (a domain) is short. It also bounds what a message grows by.
const MAX_NAME_BYTES: usize = 128;

/// The message with users and accounts filled in where they were missing and slurmctld says them in time.
pub async fn complete<'a>(agent: &Agent, target: Target, part: &'a str) -> Cow<'a, str> {
    if target != Target::Resume {
        return Cow::Borrowed(part);
    }
    let Ok(mut message) = serde_json::from_str::<Message<ResumeQueueBody>>(part) else {
        // Whoever reads it says what is wrong with it.
        return Cow::Borrowed(part);
    };
    let ResumeQueueBody::Resume(request) = &mut message.body else {
        return Cow::Borrowed(part);
    };
    let unknown: Vec<&JobId> = request
        .jobs
        .iter()
        .filter(|job| job.user.is_none())
        .map(|job| &job.job_id)
        .collect();
    if unknown.is_empty() || unknown.len() > MAX_ASKED_JOBS {
        return Cow::Borrowed(part);
    }
    match tokio::time::timeout(ASK_TIMEOUT, agent.receiver.slurm.jobs(&unknown)).await {
        Ok(Ok(answer)) => {
            fill_in(&mut request.jobs, &JobsFile::parse(&answer));
            Cow::Owned(message.to_json())
        }
        Ok(Err(error)) => {
            debug!("the request goes out without users and accounts: {error}");
            Cow::Borrowed(part)
        }
        Err(_) => {
            debug!("the request goes out without users and accounts: squeue is slow");
            Cow::Borrowed(part)
        }
    }
}

fn fill_in(jobs: &mut [RequestJob], known: &JobsFile<'_>) {
    let own = |text: Option<&str>| {
        text.filter(|text| text.len() <= MAX_NAME_BYTES)
            .map(ToOwned::to_owned)
    };
    for job in jobs.iter_mut().filter(|job| job.user.is_none()) {
        let Some(facts) = job
            .job_id
            .as_str()
            .parse()
            .ok()
            .and_then(|id| known.get(id))
        else {
            continue;
        };
        job.user = own(facts.user);
        job.account = own(facts.account);
        job.partition = job.partition.take().or_else(|| own(facts.partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(job_id: &str, user: Option<&str>) -> RequestJob {
        RequestJob {
            job_id: JobId::new(job_id).unwrap(),
            nodes_resume: "cloud1".to_owned(),
            nodes_alloc: None,
            partition: None,
            features: None,
            user: user.map(ToOwned::to_owned),
            account: None,
        }
    }

    #[test]
    fn only_what_is_missing_is_filled_in() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let answer = format!(
            "7\tada\tphysics\tcloud\t(null)\n8\tbob\t(null)\tcloud,prem\t(null)\n9\t{long}\ta\tcloud\t(null)\n"
        );
        let mut jobs = [
            job("7", None),
            job("8", None),
            job("9", None),
            job("10", None),
            job("7", Some("eve")),
        ];
        fill_in(&mut jobs, &JobsFile::parse(&answer));
        let seen = jobs.map(|job| (job.user, job.account, job.partition));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            seen,
            [
                (text("ada"), text("physics"), text("cloud")),
                (text("bob"), None, None),
                (None, text("a"), text("cloud")),
                (None, None, None),
                (text("eve"), None, None),
            ]
        );
    }
}
