//! The jobs file: what the agent last learned of the jobs that may need cloud nodes, for the programs
//! that must not ask slurmctld. One job a line, tab-separated, so that 10,000 jobs are read in a few
//! milliseconds and without a copy:
//!
//! ```text
//! <job id> <user> <account> <partition> <features>
//! ```

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

/// The file's lines by job id; a line is taken apart when its job is asked for. Lines of another form
/// are left out: what is known of a job is for tags and reports, never a condition.
#[derive(Debug)]
pub struct JobsFile<'a>(Vec<(u32, &'a str)>);

impl<'a> JobsFile<'a> {
    /// Takes the file's text.
    pub fn parse(text: &'a str) -> Self {
        let mut lines: Vec<(u32, &str)> = text.lines().filter_map(numbered).collect();
        // squeue's own order is nearly this one, and then sorting is one look at each.
        lines.sort_by_key(|(job_id, _)| *job_id);
        Self(lines)
    }

    /// What is known of a job.
    pub fn get(&self, job_id: u32) -> Option<JobFacts<'a>> {
        let found = self.0.binary_search_by_key(&job_id, |(job_id, _)| *job_id);
        found.ok().map(|index| facts(self.0[index].1))
    }
}

fn numbered(line: &str) -> Option<(u32, &str)> {
    let (job_id, rest) = line.split_once('\t')?;
    Some((job_id.parse().ok()?, rest))
}

/// What stands after the job id.
fn facts(rest: &str) -> JobFacts<'_> {
    let mut fields = rest.split('\t');
    let mut fact = || {
        fields
            .next()
            .filter(|text| !text.is_empty() && *text != NONE)
    };
    JobFacts {
        user: fact(),
        account: fact(),
        partition: fact().filter(|partition| !partition.contains(',')),
        features: fact(),
    }
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
            "8\tbob\t(null)\tcloud,prem\t(null)\n7\tada\tphysics\tcloud\tgpu|big\nnonsense\n";
        let jobs = JobsFile::parse(text);
        assert_eq!(jobs.0.len(), 2);
        assert_eq!(jobs.get(9), None);
        assert_eq!(
            jobs.get(7).unwrap(),
            JobFacts {
                user: Some("ada"),
                account: Some("physics"),
                partition: Some("cloud"),
                features: Some("gpu|big"),
            }
        );
        assert_eq!(
            jobs.get(8).unwrap(),
            JobFacts {
                user: Some("bob"),
                ..JobFacts::default()
            }
        );
        let first = text.lines().next().unwrap();
        assert_eq!(partitions(first).collect::<Vec<_>>(), ["cloud", "prem"]);
    }
}
