//! Remarks for jobs: appended to their `AdminComment`, which only administrators can write and which stays with a
//! job when it is requeued. A user's own `Comment` is never touched.

use std::collections::BTreeMap;

use spillway_core::envelope::{JobNote, MAX_NOTE_JOBS};
use spillway_core::name::JobId;
use tracing::debug;

use super::{Slurm, SlurmError, reason_text};

/// The longest `AdminComment` that we write: some remarks, and `scontrol show job` stays readable. A longer one is
/// somebody's document and is left alone.
pub const MAX_ADMIN_COMMENT_BYTES: usize = 1000;
/// How each remark begins: what stands before the first is not ours.
const MARK: &str = "spillway: ";
/// What stands between remarks.
const BETWEEN: &str = " | ";

/// Widths of squeue's columns, in bytes as squeue counts them.
const JOB_WIDTH: usize = 12;
const ARRAY_WIDTH: usize = 24;
/// One more than we write, to know a longer comment.
const COMMENT_WIDTH: usize = MAX_ADMIN_COMMENT_BYTES + 1;
/// What squeue prints where there is no comment.
const NONE: &str = "(null)";

/// What slurmctld says of one job.
#[derive(Debug, PartialEq, Eq)]
struct JobRow<'a> {
    /// Its number. Those tasks of an array that have never been started share one.
    job: &'a str,
    /// `7`, `7_2` or `7+1`.
    name: &'a str,
    comment: &'a str,
}

impl Slurm {
    /// Appends a remark to the `AdminComment` of those of its jobs that slurmctld still knows.
    pub async fn remark(&self, note: &JobNote) -> Result<(), SlurmError> {
        let jobs = &note.jobs[..note.jobs.len().min(MAX_NOTE_JOBS)];
        let text = self.job_rows(jobs).await?;
        let rows: Vec<JobRow<'_>> = text.lines().filter_map(JobRow::parse).collect();
        for (comment, targets) in comments(jobs, &rows, &note.text) {
            let targets = format!("JobId={}", targets.join(","));
            let comment = format!("AdminComment={comment}");
            let told = self.run("scontrol", &["update", &targets, &comment]).await;
            match told {
                // One has ended or is gone; the others have it.
                Err(SlurmError::Refused { reason, .. }) => debug!(%targets, "{reason}"),
                told => drop(told?),
            }
        }
        Ok(())
    }

    async fn job_rows(&self, jobs: &[JobId]) -> Result<String, SlurmError> {
        if jobs.is_empty() {
            return Ok(String::new());
        }
        let jobs: Vec<&str> = jobs.iter().map(JobId::as_str).collect();
        let jobs = format!("--jobs={}", jobs.join(","));
        let format = format!(
            "--Format=JobID:{JOB_WIDTH},JobArrayID:{ARRAY_WIDTH},admin_comment:{COMMENT_WIDTH}"
        );
        // Without `--array` squeue shows the waiting tasks of an array as one, whatever their comments are.
        let arguments = ["--noheader", "--all", "--array", &jobs, &format];
        match self.run("squeue", &arguments).await {
            // Said only if it knows none of them.
            Err(SlurmError::Refused { reason, .. }) if reason.contains("Invalid job id") => {
                Ok(String::new())
            }
            told => told,
        }
    }
}

impl<'a> JobRow<'a> {
    /// Reads a line; none if its comment is too long or has line breaks, and so is not ours to write.
    fn parse(line: &'a str) -> Option<Self> {
        let width = JOB_WIDTH + ARRAY_WIDTH + COMMENT_WIDTH;
        let (job, rest) = line.split_at_checked(JOB_WIDTH)?;
        let (name, comment) = rest.split_at_checked(ARRAY_WIDTH)?;
        let comment = Some(comment.trim_end())
            .filter(|comment| line.len() == width && comment.len() <= MAX_ADMIN_COMMENT_BYTES)?;
        Some(Self {
            job: job.trim_end(),
            name: name.trim_end(),
            comment: if comment == NONE { "" } else { comment },
        })
    }
}

/// The comments to write, each with the jobs that get it.
fn comments<'a>(jobs: &[JobId], rows: &[JobRow<'a>], text: &str) -> BTreeMap<String, Vec<&'a str>> {
    let mut comments: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for job in jobs {
        let is_it = |row: &&JobRow<'_>| [row.name, row.job].contains(&job.as_str());
        // By its name: the number of an array's last task is the array's as well.
        if let [row] = rows.iter().filter(is_it).collect::<Vec<_>>()[..]
            && let Some(comment) = appended(row.comment, text)
        {
            let targets = comments.entry(comment).or_default();
            if !targets.contains(&row.name) {
                targets.push(row.name);
            }
        }
    }
    comments
}

/// The comment with the remark at its end; none if it is there already or has no room. Our own oldest remarks make
/// room, what others wrote stays.
fn appended(comment: &str, text: &str) -> Option<String> {
    let text = reason_text(text).replace('|', "/");
    let text = text.trim();
    let remark = match text.strip_prefix(MARK) {
        Some(_) => text.to_owned(),
        None => format!("{MARK}{text}"),
    };
    let ours = comment.find(MARK).unwrap_or(comment.len());
    let (others, ours) = comment.split_at(ours);
    let mut remarks: Vec<&str> = ours.split(BETWEEN).filter(|own| !own.is_empty()).collect();
    if remarks.contains(&remark.as_str()) {
        return None;
    }
    remarks.push(&remark);
    let others = others.strip_suffix(BETWEEN).unwrap_or(others);
    loop {
        let parts = std::iter::once(others).chain(remarks.iter().copied());
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        let whole = parts.join(BETWEEN);
        if whole.len() <= MAX_ADMIN_COMMENT_BYTES {
            return Some(whole);
        }
        if remarks.len() == 1 {
            return None;
        }
        remarks.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_appended_once() {
        let first = appended("", "no \"c5\"\nin | a").unwrap();
        assert_eq!(first, "spillway: no 'c5' in / a");
        assert_eq!(appended(&first, "no \"c5\"\nin | a"), None);
        let second = appended(&first, "spillway: then c6").unwrap();
        assert_eq!(second, "spillway: no 'c5' in / a | spillway: then c6");
        assert_eq!(appended(&second, "then c6"), None);
        // A part of a remark is another remark.
        assert!(appended(&second, "then").is_some());
    }

    #[test]
    fn what_others_wrote_stays() {
        let one = appended("ticket 7", "tried a").unwrap();
        assert_eq!(one, "ticket 7 | spillway: tried a");
        let two = appended(&one, "tried b").unwrap();
        assert_eq!(two, "ticket 7 | spillway: tried a | spillway: tried b");
    }

    #[test]
    fn the_oldest_remarks_make_room() {
        let mut comment = "ticket 7".to_owned();
        for number in 0..20 {
            let text = format!("{number} {}", "é".repeat(120));
            comment = appended(&comment, &text).unwrap();
            assert!(comment.len() <= MAX_ADMIN_COMMENT_BYTES, "{number}");
            assert!(comment.starts_with("ticket 7 | spillway: "), "{comment}");
            assert!(comment.ends_with(&text), "{comment}");
        }
        assert_eq!(comment.matches(MARK).count(), 3);
        assert!(comment.contains(" | spillway: 17 "), "{comment}");
        let full = "x".repeat(MAX_ADMIN_COMMENT_BYTES - 5);
        assert_eq!(appended(&full, "tried a"), None);
    }

    fn line(job: &str, name: &str, comment: &str) -> String {
        format!("{job:<JOB_WIDTH$}{name:<ARRAY_WIDTH$}{comment:<COMMENT_WIDTH$}")
    }

    #[test]
    fn a_comment_that_is_not_ours_to_write_is_left_alone() {
        let none = line("7", "7", NONE);
        assert_eq!(JobRow::parse(&none).unwrap().comment, "");
        let long = line("7", "7", &"x".repeat(COMMENT_WIDTH));
        assert_eq!(JobRow::parse(&long), None);
        // One with a line break comes as two lines.
        let whole = line("7", "7", "two\nlines");
        assert!(whole.lines().all(|part| JobRow::parse(part).is_none()));
    }

    #[test]
    fn each_job_by_its_own_name() {
        let lines = [
            line("7", "7_3", "(null)"),
            line("8", "7_2", "spillway: x"),
            line("11", "10+1", "(null)"),
            line("12", "12", "(null)"),
            line("20", "20_1", "(null)"),
            line("20", "20_2", "(null)"),
        ];
        let rows: Vec<JobRow<'_>> = lines.iter().filter_map(|l| JobRow::parse(l)).collect();
        // 20 is two jobs yet, and which one is meant cannot be known.
        let jobs = ["7", "8", "7_2", "11", "12", "20", "99"].map(|job| JobId::new(job).unwrap());
        let told = comments(&jobs, &rows, "y");
        let told: Vec<(&str, String)> = told.iter().map(|(c, j)| (&c[..], j.join(","))).collect();
        let expected = [
            ("spillway: x | spillway: y", "7_2".to_owned()),
            ("spillway: y", "7_3,10+1,12".to_owned()),
        ];
        assert_eq!(told, expected);
    }
}
