//! The jobs file: what the agent last learned of the jobs that may need cloud nodes, for the programs
//! that must not ask slurmctld. One job a line, tab-separated, so that 10,000 jobs are read in a few
//! milliseconds and without a copy:
//!
//! ```text
//! <job id> <user> <account> <partition> <features>
//! ```

use std::collections::HashMap;

/// What squeue prints where a job has nothing.
const NONE: &str = "(null)";
/// What `squeue --format` must print for a line of this file: the job's own id (also for an array's
/// task), user, account, partition, features.
pub const SQUEUE_FORMAT: &str = "%A\t%u\t%a\t%P\t%f";

/// What is known of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobFacts<'a> {
    /// Who submitted it.
    pub user: Option<&'a str>,
    /// Whose account it runs on.
    pub account: Option<&'a str>,
    /// Its partition; none while it may go to several.
    pub partition: Option<&'a str>,
    /// Its constraint expression.
    pub features: Option<&'a str>,
}

/// Reads the file's text. Lines of another form are left out: what is known of a job is for tags and
/// reports, never a condition.
pub fn parse(text: &str) -> HashMap<u32, JobFacts<'_>> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(u32, JobFacts<'_>)> {
    let mut fields = line.split('\t');
    let job_id = fields.next()?.parse().ok()?;
    let mut fact = || {
        fields
            .next()
            .filter(|text| !text.is_empty() && *text != NONE)
    };
    let facts = JobFacts {
        user: fact(),
        account: fact(),
        partition: fact().filter(|partition| !partition.contains(',')),
        features: fact(),
    };
    Some((job_id, facts))
}

/// The partitions that a line names.
pub fn partitions(line: &str) -> impl Iterator<Item = &str> {
    line.split('\t').nth(3).unwrap_or_default().split(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_squeue() {
        let text =
            "7\tada\tphysics\tcloud\tgpu|big\n8\tbob\t(null)\tcloud,prem\t(null)\nnonsense\n";
        let jobs = parse(text);
        assert_eq!(jobs.len(), 2);
        assert_eq!(
            jobs[&7],
            JobFacts {
                user: Some("ada"),
                account: Some("physics"),
                partition: Some("cloud"),
                features: Some("gpu|big"),
            }
        );
        assert_eq!(
            jobs[&8],
            JobFacts {
                user: Some("bob"),
                ..JobFacts::default()
            }
        );
        let second = text.lines().nth(1).unwrap();
        assert_eq!(partitions(second).collect::<Vec<_>>(), ["cloud", "prem"]);
    }
}
