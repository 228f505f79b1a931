//! `spillway node watch`, beside slurmd for as long as the machine is up: tells the control plane what instance metadata
//! says of the instance's end, in case EC2's event is lost; and turns the machine off when it is of no use any more
//! ([`super::dead_man`]).

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::dead_man::{Cause, Claim, DeadMan, Limits, Look};
use super::reports::Reports;
use super::slurm::Slurm;
use super::{ControlPlane, Instance, shut_down, steps};
use crate::aws::dynamodb::{InstanceItem, InstanceState};
use crate::aws::imds::{self, EndNotice};

/// How often instance metadata is asked: as often as EC2 recommends, and a spot notice gives two minutes.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether the machine is of use. A thousand nodes then read eight items a second.
const LOOK_INTERVAL: Duration = Duration::from_mins(2);

/// How many looks at least come before a limit is over.
const LOOKS_IN_LIMIT: u32 = 4;

/// What `node watch` is told.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Whose node this is.
    pub control_plane: ControlPlane,
    /// URL of the reports queue.
    pub reports_queue: String,
    /// How Slurm is asked.
    pub slurm_conf: Option<std::path::PathBuf>,
    /// Those of slurmd, which tell where it has its configuration from.
    pub slurmd_options: Vec<String>,
    /// When the machine turns itself off.
    pub limits: Limits,
}

/// Watches until the machine is turned off; says why. An error means that this is no instance, or cannot be turned off.
pub async fn watch(options: &WatchOptions) -> anyhow::Result<Cause> {
    let instance = Instance::connect(&options.control_plane).await?;
    let id = &instance.identity.instance_id;
    info!("watching for the end of instance {id}");
    let reports = instance.reports(&options.control_plane.cluster, &options.reports_queue);
    let cause = tokio::select! {
        cause = until_useless(&instance, options) => cause,
        never = report_notices(&instance, &reports) => match never {},
    };
    error!("turning {id} off: {cause}");
    shut_down().await?;
    Ok(cause)
}

/// Reports each notice once; again as long as the queue does not take it.
async fn report_notices(instance: &Instance, reports: &Reports) -> std::convert::Infallible {
    let mut told: HashSet<EndNotice> = HashSet::new();
    let mut answers = true;
    let mut ticks = interval(NOTICE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let notices = match imds::notices(&instance.imds).await {
            Ok(notices) => notices,
            Err(error) => {
                if answers {
                    warn!("{:#}", anyhow::Error::from(error));
                }
                answers = false;
                continue;
            }
        };
        answers = true;
        for notice in notices {
            if told.contains(&notice) {
                continue;
            }
            warn!(
                action = notice.action,
                until_ms = notice.until_ms,
                "EC2 takes this instance"
            );
            match reports.notice(&notice).await {
                Ok(()) => drop(told.insert(notice)),
                Err(error) => warn!("{error:#}"),
            }
        }
    }
}

async fn until_useless(instance: &Instance, options: &WatchOptions) -> Cause {
    let slurm = Slurm::new(options.slurm_conf.clone(), &options.slurmd_options);
    let started = Instant::now();
    let mut dead_man = DeadMan::default();
    loop {
        let look = look(instance, &slurm).await;
        if let Some(cause) = dead_man.look(look, started.elapsed(), options.limits) {
            return cause;
        }
        tokio::time::sleep(pause(options.limits)).await;
    }
}

fn pause(limits: Limits) -> Duration {
    let shortest = limits.unclaimed.min(limits.cut_off);
    LOOK_INTERVAL.min(shortest / LOOKS_IN_LIMIT)
}

async fn look(instance: &Instance, slurm: &Slurm) -> Look {
    let claim = match instance.table.instance(&instance.arn).await {
        Ok(item) => Some(claim(item.as_ref())),
        Err(error) => {
            warn!("{error}");
            None
        }
    };
    Look {
        claim,
        // slurmctld has enough to do: it is asked only where AWS does not answer.
        is_heard: claim.is_some() || slurm.settings().await.is_ok(),
        // Last, so that a step that started meanwhile is seen.
        runs_step: steps::is_any_running(),
    }
}

fn claim(item: Option<&InstanceItem>) -> Claim {
    match item {
        Some(item) if item.state == InstanceState::Released => Claim::Released,
        Some(item) if item.serving.is_some() => Claim::Serving,
        _ => Claim::Never,
    }
}
