//! The sweep: every minute what EC2, the table and slurmctld say is held against each other, and what went wrong and no
//! event told of is healed. `observe` reads, `spillway_core::sweep` decides, `execute` acts, in the ways that events do.

mod execute;
mod observe;

use serde::{Deserialize, Serialize};
use spillway_core::capacity::Capacity;
use spillway_core::message::{MAX_REPORT_ID_CHARS, SweepOrder};
use spillway_core::sweep::{Finding, Marks, SweepPlan, plan_sweep};
pub use spillway_core::sweep::{LAST_REPORT, MAX_LISTED, SweepReport};
use tracing::{error, info, warn};

use crate::fault::{Fault, FaultKind};
use crate::launch::Budget;
use crate::ports::{Clock, Control, Ec2, Queues, Table};
use crate::shared::{ONLY, change};
use crate::tally::{self, Tally};

/// How often the whole table is read, and not only what is active: a node whose index entry is lost waits so long.
const WHOLE_EVERY_MS: u64 = 15 * 60 * 1000;

/// A lease outlives its worker by this, for clocks that differ between Lambdas.
const LEASE_MARGIN_MS: u64 = 1_000;

/// What sweeps keep between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRecord {
    /// Until when the sweep that is at work may be at it, Unix milliseconds.
    pub lease_until_ms: u64,
    /// When the whole table was last read.
    pub whole_ms: u64,
    /// What was found and is waited for.
    pub marks: Marks,
}

/// Sweeps once. Two at a time would mark for each other: the second leaves it to the first.
pub async fn sweep<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    order: SweepOrder,
    budget: Budget,
) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    tally.add(tally::SWEEPS, 1);
    let Some(record) = take_turn(control, budget).await? else {
        info!("another sweep is at work");
        // Whoever asked waits for this one; the schedule's is as good as the other.
        return if order.report_id.is_some() {
            Err(at_work())
        } else {
            Ok(tally)
        };
    };
    let since_whole_ms = control.clock.now_ms().saturating_sub(record.whole_ms);
    let order = SweepOrder {
        whole: order.whole || since_whole_ms >= WHOLE_EVERY_MS,
        ..order
    };
    let swept = turn(control, ec2, &order, &record.marks, budget, &mut tally).await;
    let marks = swept.as_ref().ok().map(|(plan, _)| plan.marks.clone());
    give_back(control, marks.filter(|_| !order.dry_run), order.whole).await?;
    let (_, report) = swept?;
    let asked = order.report_id.as_deref();
    let is_name = |id: &&str| {
        let is_short = (1..=MAX_REPORT_ID_CHARS).contains(&id.chars().count());
        is_short && *id != LAST_REPORT && !id.contains('#')
    };
    if let Some(name) = asked.filter(is_name) {
        keep(control, name, &report).await?;
    }
    Ok(tally)
}

fn at_work() -> Fault {
    Fault {
        kind: FaultKind::Transient,
        service: "dynamodb".into(),
        operation: "PutItem".into(),
        code: "SweepAtWork".to_owned(),
        message: "another sweep is at work".to_owned(),
    }
}

async fn turn<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    order: &SweepOrder,
    marks: &Marks,
    budget: Budget,
    tally: &mut Tally,
) -> Result<(SweepPlan, SweepReport), Fault> {
    let seen = observe::observe(control, ec2, order.whole).await?;
    let plan = plan_sweep(&seen.snapshot, marks);
    tell(&plan, order.dry_run);
    tally.add(tally::SWEEP_FINDINGS, plan.findings.len());
    // Each minute anew, so that the alarm lasts as long as the protection.
    let capacity = control.table.shared::<Capacity>(ONLY).await?.record;
    tally.add(tally::GROUPS_PROTECTED, capacity.protected_count());
    let slurm_age_ms = seen.slurm_observed_ms;
    let report = SweepReport {
        at_ms: seen.snapshot.now_ms,
        dry_run: order.dry_run,
        instances: seen.snapshot.instances.len(),
        nodes: seen.snapshot.pairings.len(),
        slurm_age_ms: slurm_age_ms.map(|at_ms| seen.snapshot.now_ms.saturating_sub(at_ms)),
        findings: plan.findings.iter().take(MAX_LISTED).cloned().collect(),
        found: plan.findings.len(),
        stopped: plan.stopped.clone(),
    };
    if !order.dry_run {
        tally.add(tally::SWEEPS_STOPPED, usize::from(plan.stopped.is_some()));
        // First: what is healed is not found again, and the site is told of it by the report (`publish`).
        match keep(control, LAST_REPORT, &report).await {
            Err(fault) if fault.is_passing() => return Err(fault),
            // As one that a newer release has written: what is wrong is healed all the same.
            Err(fault) => error!(%fault, "the report cannot be kept"),
            Ok(()) => {}
        }
        execute::execute(control, ec2, &seen, &plan, budget, tally).await?;
    }
    Ok((plan, report))
}

fn tell(plan: &SweepPlan, dry_run: bool) {
    for Finding {
        what,
        node,
        instance,
        reason,
        heal,
    } in &plan.findings
    {
        let node = node.as_ref().map(tracing::field::display);
        let instance_id = instance.as_ref().map(tracing::field::display);
        if let Some(heal) = heal {
            warn!(?what, node, instance_id, ?heal, dry_run, "{reason}");
        } else {
            info!(?what, node, instance_id, "{reason}");
        }
    }
    if let Some(why) = &plan.stopped {
        error!("the sweep takes nothing away: {why}");
    }
}

/// None while another has it.
async fn take_turn<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    budget: Budget,
) -> Result<Option<SweepRecord>, Fault> {
    change(control, ONLY, |record: &mut SweepRecord, now_ms| {
        if record.lease_until_ms > now_ms {
            return None;
        }
        let taken = record.clone();
        record.lease_until_ms = budget.ends_ms + LEASE_MARGIN_MS;
        Some(taken)
    })
    .await
}

async fn give_back<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    marks: Option<Marks>,
    whole: bool,
) -> Result<(), Fault> {
    change(control, ONLY, |record: &mut SweepRecord, now_ms| {
        record.lease_until_ms = 0;
        if let Some(marks) = &marks {
            record.marks = marks.clone();
            if whole {
                record.whole_ms = now_ms;
            }
        }
    })
    .await
}

/// Keeps the report under a name.
async fn keep<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    name: &str,
    report: &SweepReport,
) -> Result<(), Fault> {
    let put = |kept: &mut Option<SweepReport>, _| *kept = Some(report.clone());
    change(control, name, put).await
}
