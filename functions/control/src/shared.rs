//! Records that every worker may change: what launches hold of the caps, what is known of capacity, EC2's budget, gangs.
//! Each is one item of the table, read, changed by a pure function of `spillway_core`, and written under the version read
//! (docs/decisions/0006).

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use spillway_core::budget::Budget;
use spillway_core::capacity::Capacity;
use spillway_core::gang::Gang;
use spillway_core::usage::Usage;

use crate::fault::{Fault, FaultKind};
use crate::ports::{Clock, Control, Table};
use crate::record::Stored;
use crate::sweep::{SweepRecord, SweepReport};

/// A record that many write.
pub trait Shared:
    Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its kind, the first part of its key.
    const KIND: &'static str;
    /// Whether it may be forgotten once it has not been written for long.
    const EXPIRES: bool = false;

    /// Numbers for people who look at the item.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl Shared for Usage {
    const KIND: &'static str = "usage";

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("nodes", u64::from(self.nodes())), ("vcpus", self.vcpus())]
    }
}

impl Shared for Capacity {
    const KIND: &'static str = "capacity";
}

impl Shared for Budget {
    const KIND: &'static str = "budget";
}

/// One for each job, by its id.
impl Shared for Option<Gang> {
    const KIND: &'static str = "gang";
    const EXPIRES: bool = true;
}

impl Shared for SweepRecord {
    const KIND: &'static str = "sweep";
}

/// By the name that whoever asked gave it; the last one under [`crate::sweep::LAST_REPORT`].
impl Shared for Option<SweepReport> {
    const KIND: &'static str = "sweep-report";
    const EXPIRES: bool = true;
}

/// The name of a record of which a cluster has one.
pub const ONLY: &str = "";

/// How often a record is read again because another writer was quicker. At most 15 Lambdas with 5 messages each write
/// one, and of those that meet, one gets through every time.
const MAX_CONFLICTS: u32 = 24;

/// The longest wait after a first conflict; it doubles with each, up to sixteen times that. A write takes some 5 ms.
const CONFLICT_WAIT_MS: u64 = 10;
const MAX_DOUBLINGS: u32 = 4;

/// Reads a record, changes it and writes it, again where another writer was quicker. What is not changed is not written.
pub async fn change<S: Shared, T: Table, Q, C: Clock, R>(
    control: &Control<T, Q, C>,
    name: &str,
    change: impl Fn(&mut S, u64) -> R,
) -> Result<R, Fault> {
    for round in 0..MAX_CONFLICTS {
        let Stored { record, version } = control.table.shared::<S>(name).await?;
        let mut changed = record.clone();
        let result = change(&mut changed, control.clock.now_ms());
        if changed == record || control.table.put_shared(name, &changed, version).await? {
            return Ok(result);
        }
        control.clock.sleep_ms(wait_ms(&control.clock, round)).await;
    }
    Err(Fault {
        kind: FaultKind::Transient,
        service: "dynamodb".into(),
        operation: "PutItem".into(),
        code: "RecordContended".to_owned(),
        message: format!(
            "the {} record changed {MAX_CONFLICTS} times while it was written",
            S::KIND
        ),
    })
}

/// Half of the wait is by chance, so that writers that met once do not meet again.
fn wait_ms(clock: &impl Clock, round: u32) -> u64 {
    let most_ms = CONFLICT_WAIT_MS << round.min(MAX_DOUBLINGS);
    let chance = clock.fresh_id().bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    most_ms / 2 + chance % (most_ms / 2 + 1)
}
