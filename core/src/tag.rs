//! The tags that every instance bears. IAM conditions, the sweep and the EC2 console rely on them.

/// Which cluster it serves; rights to tag and terminate hang on it.
pub const CLUSTER: &str = "spillway:cluster";
/// Node group.
pub const NODE_GROUP: &str = "spillway:node-group";
/// Slurm partition.
pub const PARTITION: &str = "spillway:partition";
/// Request id of the call of ResumeProgram.
pub const REQUEST: &str = "spillway:request";
/// Part of that request.
pub const PART: &str = "spillway:part";
/// Generation of that request.
pub const GENERATION: &str = "spillway:generation";
/// Chunk of that part's plan.
pub const CHUNK: &str = "spillway:chunk";
/// Attempt for that chunk.
pub const ATTEMPT: &str = "spillway:attempt";
/// Slurm job, where the instance serves one.
pub const JOB: &str = "spillway:job";
/// That job's user.
pub const USER: &str = "spillway:user";
/// That job's account.
pub const ACCOUNT: &str = "spillway:account";
/// Whatever its value: the instance is not ended by us.
pub const HOLD: &str = "spillway:hold";
/// What the EC2 console shows: the Slurm node's name.
pub const NAME: &str = "Name";

/// EC2's limit on a tag's value (EC2 user guide, tag restrictions).
pub const MAX_VALUE_CHARS: usize = 256;

/// `text` as a tag value: what EC2 does not take in every service is replaced, the rest is cut.
#[must_use]
pub fn value(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_alphanumeric() || " _.:/=+-@".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(MAX_VALUE_CHARS)
        .collect()
}
