//! Names of Slurm's side and our own: cluster, node, partition, node group, request, job.

use serde::{Deserialize, Deserializer, de};

use super::{Rule, all_in, deserialize_from_string, name, starts_alphanumeric};

/// Longest cluster name: Slurm's own limit (slurm.conf, `ClusterName`, "maximum of 40 characters"); it
/// also leaves room for our suffixes in the names of queues (80) and functions and roles (64).
pub const MAX_CLUSTER_NAME_LENGTH: usize = 40;
/// Longest node name: a burst node takes its node name as host name and Linux allows 64 (`HOST_NAME_MAX`).
pub const MAX_NODE_NAME_LENGTH: usize = 64;
/// Longest partition name: a bound of ours, so that a message's size follows from its counts.
pub const MAX_PARTITION_NAME_LENGTH: usize = 64;
/// Longest node group name: a bound of ours, for the same reason.
pub const MAX_NODE_GROUP_NAME_LENGTH: usize = 64;
/// Longest request id: a bound of ours, for messages and table keys.
pub const MAX_REQUEST_ID_LENGTH: usize = 64;
/// Longest name of a signal that jobs may be sent.
pub const MAX_SIGNAL_LENGTH: usize = 4;
/// Longest job id in text: two 32-bit numbers and a sign between them.
pub const MAX_JOB_ID_LENGTH: usize = 21;

deserialize_from_string!(
    ClusterName,
    NodeName,
    PartitionName,
    NodeGroupName,
    RequestId,
    Signal
);

name!(
    /// A Slurm cluster (`ClusterName` in slurm.conf). It becomes part of the names of queues, functions,
    /// roles and the table.
    ClusterName,
    Rule {
        kind: "cluster name",
        max_length: MAX_CLUSTER_NAME_LENGTH,
        words: "1 to 40 of a-z, 0-9 and -, with a letter or digit first and last",
        pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        reserved: &[],
        is_valid: is_cluster_name,
    }
);

name!(
    /// A Slurm node (`NodeName` in slurm.conf), one name and never an expression. `ALL` and `DEFAULT`
    /// are refused: scontrol would take the first for every node of the cluster.
    NodeName,
    Rule {
        kind: "node name",
        max_length: MAX_NODE_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &["ALL", "DEFAULT"],
        is_valid: is_slurm_name,
    }
);

name!(
    /// A Slurm partition (`PartitionName` in slurm.conf).
    PartitionName,
    Rule {
        kind: "partition name",
        max_length: MAX_PARTITION_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &["ALL", "DEFAULT"],
        is_valid: is_slurm_name,
    }
);

name!(
    /// A node group: nodes with one launch recipe.
    NodeGroupName,
    Rule {
        kind: "node group name",
        max_length: MAX_NODE_GROUP_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &[],
        is_valid: is_slurm_name,
    }
);

name!(
    /// One call of Slurm, from the program that Slurm ran to the last update it caused.
    RequestId,
    Rule {
        kind: "request id",
        max_length: MAX_REQUEST_ID_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9 and -",
        pattern: "^[A-Za-z0-9-]+$",
        reserved: &[],
        is_valid: is_request_id,
    }
);

name!(
    /// A job as Slurm prints it: `123`, `123_4` (array task) or `123+1` (component of a heterogeneous
    /// job). In the resume file it is a number, so it is read from a number as well.
    JobId,
    Rule {
        kind: "job id",
        max_length: MAX_JOB_ID_LENGTH,
        words: "a number, or an array task such as 123_4, or a component such as 123+1",
        pattern: "^[1-9][0-9]{0,8}([_+](0|[1-9][0-9]{0,8}))?$",
        reserved: &[],
        is_valid: is_job_id,
    }
);

name!(
    /// A signal that jobs are sent, by its name without `SIG` as scancel takes it.
    Signal,
    Rule {
        kind: "signal",
        max_length: MAX_SIGNAL_LENGTH,
        words: "the name of a signal without SIG, such as USR1 or TERM",
        pattern: "^(HUP|INT|QUIT|ABRT|ALRM|TERM|USR1|USR2|URG|CONT|STOP|TSTP)$",
        reserved: &[],
        is_valid: is_signal,
    }
);

impl From<std::num::NonZeroU32> for JobId {
    fn from(number: std::num::NonZeroU32) -> Self {
        Self(number.to_string().into_boxed_str())
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a job id: a number, or a string such as \"123_4\""
        )]
        enum Form {
            Number(std::num::NonZeroU32),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number.into()),
            Form::Text(text) => Self::new(text).map_err(de::Error::custom),
        }
    }
}

fn is_cluster_name(text: &str) -> bool {
    all_in(text, "-")
        && !text.contains(|c: char| c.is_ascii_uppercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_slurm_name(text: &str) -> bool {
    starts_alphanumeric(text) && all_in(text, "_.-")
}

/// Those that a program can catch or that stop it for a while: to kill is Slurm's own business.
fn is_signal(text: &str) -> bool {
    [
        "HUP", "INT", "QUIT", "ABRT", "ALRM", "TERM", "USR1", "USR2", "URG", "CONT", "STOP", "TSTP",
    ]
    .contains(&text)
}

fn is_request_id(text: &str) -> bool {
    all_in(text, "-")
}

/// `123`, `123_4` (array task) or `123+1` (component of a heterogeneous job), without leading zeros.
fn is_job_id(text: &str) -> bool {
    let (job, rest) = text.split_at(text.find(['_', '+']).unwrap_or(text.len()));
    let is_number = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok()
            && (part == "0" || !part.starts_with('0'))
    };
    is_number(job) && job != "0" && (rest.is_empty() || is_number(&rest[1..]))
}
