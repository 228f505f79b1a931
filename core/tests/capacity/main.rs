//! What is known of EC2's capacity: pools that rest, and node groups whose instances do not join.

mod groups;
mod pools;

const NOW_MS: u64 = 1_700_000_000_000;
const MINUTE_MS: u64 = 60_000;
