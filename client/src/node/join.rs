//! `spillway node join`: from a booted instance to a node that slurmctld has taken, or to a report that
//! says why not and a machine that is off.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::check::{Checks, Outcome};
use super::record::Record;
use super::slurm::{Registration, Settings, Slurm};
use super::slurmd::Slurmd;
use super::{Instance, JoinOptions, metadata, secrets, shut_down};
use crate::aws::dynamodb::{InstanceItem, InstanceState, Serving};
use crate::aws::ssm::Parameters;

/// Pauses between two looks at the item or at slurmctld: short at first, because most joins take seconds,
/// and growing, because a thousand nodes may be waiting for one slurmctld.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long before the node's deadline it gives up by itself: its reason is more exact than "did not join",
/// and must be there first.
const REPORT_AHEAD_MS: u64 = 5_000;

/// How a join ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// slurmctld has taken the registration; slurmd runs.
    Ready,
    /// The machine is being shut down, for this reason.
    ShutDown(String),
}

/// Why the machine must go.
#[derive(Debug)]
enum Stop {
    /// The control plane let go of it and knows why.
    Released,
    /// It cannot join.
    Failed(String),
}

/// Joins the cluster or shuts the machine down. An error means that neither was possible.
pub async fn join(options: &JoinOptions) -> anyhow::Result<Joined> {
    // Without an identity this may be any machine: it is left as it is.
    let instance = Instance::connect(&options.control_plane).await?;
    info!(
        "instance {} looks for its node in table {}",
        instance.identity.instance_id,
        instance.table.name()
    );
    let reports = instance.reports(&options.control_plane.cluster, &options.reports_queue);
    let mut join = Join {
        instance: &instance,
        slurm: Slurm::new(options.slurm_conf.clone(), &options.slurmd_options),
        options,
        started: Instant::now(),
        item: None,
        trouble: None,
    };
    match join.run().await {
        Ok(serving) => {
            info!("node {} has joined", serving.node);
            reports.ready(&serving, join.time_left()).await?;
            Ok(Joined::Ready)
        }
        Err(stop) => {
            let reason = match stop {
                Stop::Released => "the control plane has released this instance".to_owned(),
                Stop::Failed(reason) => reason,
            };
            error!("cannot join: {reason}");
            if !join.is_released()
                && let Err(error) = reports.failed(join.serving(), &reason).await
            {
                error!("{error:#}");
            }
            shut_down().await?;
            Ok(Joined::ShutDown(reason))
        }
    }
}

struct Join<'a> {
    instance: &'a Instance,
    slurm: Slurm,
    options: &'a JoinOptions,
    started: Instant,
    /// As last read.
    item: Option<InstanceItem>,
    /// Why the item could not be read, if the last try failed.
    trouble: Option<String>,
}

impl Join<'_> {
    async fn run(&mut self) -> Result<Serving, Stop> {
        // Before anything runs that is not root. What it has to say is said when somebody listens for the node.
        let closed = metadata::close().await;
        let serving = self.wait_for_pairing().await?;
        closed.map_err(|error| {
            let reason = format!("cannot close instance metadata to jobs: {error}");
            Stop::Failed(reason)
        })?;
        info!(
            "this is node {} at generation {}",
            serving.node, serving.generation
        );
        self.install_secrets().await?;
        let settings = self.check(&serving).await?;
        loop {
            let serving = self.wait_for_acknowledgement().await?;
            if self.register(&serving, settings.as_ref()).await? {
                return Ok(serving);
            }
        }
    }

    /// The item is written once the instance is paired: not there yet is no fault.
    async fn wait_for_pairing(&mut self) -> Result<Serving, Stop> {
        let mut pause = Pause::default();
        loop {
            self.look().await?;
            if let Some(serving) = self.serving() {
                return Ok(serving.clone());
            }
            self.in_time(|| "no node was assigned to this instance".to_owned())?;
            pause.wait(self.time_left()).await;
        }
    }

    /// The keys that slurmd needs. SSM is asked until it answers: a thousand nodes may be asking at once.
    async fn install_secrets(&mut self) -> Result<(), Stop> {
        let parameters = Parameters::new(&self.instance.sdk);
        let cluster = &self.options.control_plane.cluster;
        let mut pause = Pause::default();
        loop {
            let installed = secrets::install(&parameters, cluster, &self.slurm);
            let error = match timeout(self.time_left(), installed).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !error.may_pass() => return Err(Stop::Failed(error.to_string())),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "SSM has not given the node's keys".to_owned(),
            };
            self.in_time(|| error.clone())?;
            warn!("{error}; asking again");
            pause.wait(self.time_left()).await;
            self.look().await?;
        }
    }

    /// Checks until all pass, or one fails for good.
    async fn check(&mut self, serving: &Serving) -> Result<Option<Settings>, Stop> {
        let mut pause = Pause::default();
        let mut last = "the checks of munge and slurmctld have not ended".to_owned();
        loop {
            let checks = Checks::run(&self.slurm, &self.instance.clock, &serving.node);
            let Ok(all) = timeout(self.time_left(), checks).await else {
                return Err(self.too_late(&last));
            };
            let Some((reason, patience)) = all.failure() else {
                log_checks(&all);
                return Ok(all.settings);
            };
            if patience.is_over(self.started.elapsed()) {
                return Err(Stop::Failed(reason.to_owned()));
            }
            self.in_time(|| reason.to_owned())?;
            warn!("{reason}; looking again");
            reason.clone_into(&mut last);
            pause.wait(self.time_left()).await;
            self.look().await?;
        }
    }

    /// Until slurmctld has the address: a slurmd that registers before could be asked for at the wrong one.
    async fn wait_for_acknowledgement(&mut self) -> Result<Serving, Stop> {
        let mut pause = Pause::default();
        loop {
            if let Some(item) = &self.item
                && let Some(serving) = &item.serving
                && item.acknowledged_generation == Some(serving.generation)
            {
                info!("slurmctld has the address of {}", serving.node);
                return Ok(serving.clone());
            }
            self.in_time(|| "slurmctld has not acknowledged the node's address".to_owned())?;
            pause.wait(self.time_left()).await;
            self.look().await?;
        }
    }

    /// Runs slurmd until slurmctld has taken its registration (true), or a newer resume needs a slurmd that
    /// booted later (false).
    async fn register(
        &mut self,
        serving: &Serving,
        settings: Option<&Settings>,
    ) -> Result<bool, Stop> {
        if let Err(error) = Record::new(self.options, serving).store(&self.options.record) {
            warn!("`spillway node check` will refuse: {error:#}");
        }
        // Once more: a service that started late may have replaced the rules meanwhile.
        if let Outcome::Failed { reason, .. } = metadata::check().await {
            return Err(Stop::Failed(reason));
        }
        let failed = |error: super::slurmd::SlurmdError| Stop::Failed(error.to_string());
        let options = &self.options.slurmd_options;
        let slurmd = Slurmd::start(&self.slurm, settings, &serving.node, options)
            .await
            .map_err(failed)?;
        info!("slurmd runs for {}", serving.node);
        let outcome = self.watch(serving, &slurmd).await;
        if !matches!(outcome, Ok(true)) {
            slurmd.kill().await;
        }
        outcome
    }

    async fn watch(&mut self, serving: &Serving, slurmd: &Slurmd) -> Result<bool, Stop> {
        let mut pause = Pause::default();
        loop {
            slurmd
                .check()
                .map_err(|error| Stop::Failed(error.to_string()))?;
            let asked = self.slurm.node(&serving.node);
            let (registration, seen) = match timeout(self.time_left(), asked).await {
                Ok(Ok(view)) => (view.registration(), view.state.join("+")),
                Ok(Err(error)) => (Registration::Awaited, error.words()),
                Err(_) => (Registration::Awaited, "it does not answer".to_owned()),
            };
            if let Registration::Refused(reason) = registration {
                return Err(Stop::Failed(reason));
            }
            self.look().await?;
            if self.serving().is_some_and(|now| now != serving) {
                warn!("Slurm has asked for the node again: slurmd must start anew");
                return Ok(false);
            }
            if registration == Registration::Taken {
                return Ok(true);
            }
            self.in_time(|| format!("slurmctld has not taken slurmd's registration: {seen}"))?;
            pause.wait(self.time_left()).await;
        }
    }

    /// Reads the instance's own item. Trouble with the table is no reason to give up before the deadline.
    async fn look(&mut self) -> Result<(), Stop> {
        match self.instance.table.instance(&self.instance.arn).await {
            Ok(item) => {
                self.item = item.or(self.item.take());
                self.trouble = None;
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    warn!("{trouble}");
                }
                self.trouble = Some(trouble);
            }
        }
        if self.is_released() {
            return Err(Stop::Released);
        }
        Ok(())
    }

    fn serving(&self) -> Option<&Serving> {
        self.item.as_ref()?.serving.as_ref()
    }

    fn is_released(&self) -> bool {
        let item = self.item.as_ref();
        item.is_some_and(|item| item.state == InstanceState::Released)
    }

    /// How long it may go on: what it then has to report must be there before its deadline.
    fn time_left(&self) -> Duration {
        let deadline_ms = self.item.as_ref().and_then(|item| item.deadline_ms);
        match deadline_ms {
            Some(deadline_ms) => {
                let now_ms = self.instance.clock.now_ms();
                Duration::from_millis(deadline_ms.saturating_sub(now_ms + REPORT_AHEAD_MS))
            }
            None => self.options.timeout.saturating_sub(self.started.elapsed()),
        }
    }

    /// Stops with what is still missing once the time is up.
    fn in_time(&self, missing: impl FnOnce() -> String) -> Result<(), Stop> {
        if self.time_left().is_zero() {
            return Err(self.too_late(&missing()));
        }
        Ok(())
    }

    fn too_late(&self, missing: &str) -> Stop {
        let waited = self.started.elapsed().as_secs();
        let trouble = self.trouble.as_ref();
        let trouble = trouble.map(|text| format!(" ({text})")).unwrap_or_default();
        Stop::Failed(format!("after {waited} s: {missing}{trouble}"))
    }
}

/// A pause that grows.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// Waits, but not longer than there is time.
    async fn wait(&mut self, time_left: Duration) {
        tokio::time::sleep(self.0.min(time_left)).await;
        self.0 = self.0.mul_f32(1.5).min(LONGEST_PAUSE);
    }
}

fn log_checks(all: &Checks) {
    for check in &all.checks {
        match &check.outcome {
            Outcome::Passed { seen } => info!("check {}: {seen}", check.name),
            Outcome::Skipped { why } => info!("check {} skipped: {why}", check.name),
            Outcome::Failed { reason, .. } => warn!("check {}: {reason}", check.name),
        }
    }
}
