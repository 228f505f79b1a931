//! Nodes whose instance is lost, of no use or never comes, on each release of Slurm: slurmctld is left with a state that it
//! does not get out of by itself (docs/slurm-states.md), no event tells of it, and the sweep heals it.

use std::collections::BTreeSet;

use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;
use spillway_world::ec2::InstanceState;

use crate::support::{Story, alive, job, job_is, node, none_runs, pause, ready, submit, until};
use crate::sweep::push_short_grace;
use crate::wedged::{Beside, Waiting, reconfigure, update};

/// Slurm's own default is five minutes.
const SLURMD_TIMEOUT_SECONDS: u64 = 20;
/// A node that is up stays so, unless a story lets it go: Slurm's own suspension heals some of this too.
const SUSPEND_TIME_SECONDS: u32 = 900;
/// The sizes of a node in slurm.conf, and what a slurmd is to find that is smaller.
const SIZE: &str = "CPUs=2";
const SMALLER: &str = "CPUs=1";

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    heals("stuck-installed", SlurmRelease::Installed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    heals("stuck-debian-13", SlurmRelease::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    heals("stuck-debian-sid", SlurmRelease::DebianSid).await;
}

async fn heals(name: &str, slurm: SlurmRelease) {
    let lab = Story::begin(name, |spec| {
        spec.slurm = slurm;
        spec.suspend_time_seconds = SUSPEND_TIME_SECONDS;
        spec.slurm_lines = vec![format!("SlurmdTimeout={SLURMD_TIMEOUT_SECONDS}")];
    })
    .await;
    push_short_grace(&lab).await;
    let lost = submit(&lab, "cloud-2", 900).await;
    let small = submit(&lab, "cloud-3", 0).await;
    let beside = Beside::begin(&lab).await;
    job_is(&lab, &lost, "RUNNING", 120).await;
    job_is(&lab, &small, "COMPLETED", 120).await;
    ready(&lab, "cloud-3").await;

    // The order matters: Slurm 22.05 forgets nodes that are powering up when it is reconfigured.
    registers_too_small(&lab, "cloud-3").await;
    is_lost_without_an_event(&lab, "cloud-2").await;
    assert_eq!(job(&lab, &lost, "Restarts").await, "1");
    lab.head.run("scancel", &[&lost]).await.expect("scancel");
    is_down_while_it_powers_up(&lab, "cloud-1").await;

    let nodes = ["cloud-1", "cloud-2", "cloud-3"];
    let waiting = Waiting::are_stuck(&lab, &nodes).await;
    for (name, flag) in [
        ("cloud-1", "POWERING_UP"),
        ("cloud-2", "NOT_RESPONDING"),
        ("cloud-3", "INVALID_REG"),
    ] {
        let seen = node(&lab, name).await;
        assert!(seen.is(flag), "{name} is {seen:?}");
    }
    let healed = waiting.are_healed(&lab).await;
    let expected = [
        ("down", "cloud-1"),
        ("instance-gone", "cloud-2"),
        ("down", "cloud-3"),
    ];
    let expected = expected.map(|(what, node)| (what.to_owned(), node.to_owned()));
    assert!(BTreeSet::from(expected).is_subset(&healed), "{healed:?}");

    beside.ends_untouched(&lab).await;
    for name in ["cloud-0", "cloud-1", "cloud-2", "cloud-3"] {
        update(&lab, name, "State=POWER_DOWN").await;
    }
    none_runs(&lab).await;
    lab.end().await;
}

/// Its slurmd, which had registered well, starts anew and finds less than slurm.conf promises.
async fn registers_too_small(lab: &Lab, name: &str) {
    let instance = ready(lab, name).await;
    // slurmds tell what their own file says; slurmctld does not believe its own any more.
    reconfigure(lab, "SlurmdParameters=config_overrides\n", "").await;
    let again = format!(
        "sed -i s/{SIZE}/{SMALLER}/ /etc/slurm/slurm.conf && pkill -KILL -x slurmd; exec slurmd -b -N {name}"
    );
    let mut command = lab.hypervisor.command(&instance, "sh").expect("it runs");
    let status = command.args(["-c", &again]).status().await;
    assert!(status.expect("sh").success());
    until("slurmctld refuses its registration", 60, async || {
        node(lab, name).await.is("INVALID_REG").then_some(())
    })
    .await;
    let seen = node(lab, name).await;
    let reason = seen.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("Low "), "{seen:?}");
}

/// Somebody terminates its instance, and EC2's events do not come.
async fn is_lost_without_an_event(lab: &Lab, name: &str) {
    let instance = ready(lab, name).await;
    lab.bus.lose(true);
    lab.ec2
        .with(|ec2, now_ms| ec2.terminate_instances(now_ms, std::slice::from_ref(&instance), false))
        .expect("EC2 terminates it");
    until("slurmctld finds that it is gone", 120, async || {
        let seen = node(lab, name).await;
        (seen.is("DOWN") && seen.is("NOT_RESPONDING")).then_some(())
    })
    .await;
    until("EC2 has nothing more to tell of it", 60, async || {
        let state = lab
            .ec2
            .with(|ec2, _| ec2.instance(&instance).map(|instance| instance.state));
        (state == Some(InstanceState::Terminated)).then_some(())
    })
    .await;
    // The event is published after it.
    pause(1).await;
    lab.bus.lose(false);
}

/// Its instance hangs, and it is set down before Slurm's ResumeTimeout and our own.
async fn is_down_while_it_powers_up(lab: &Lab, name: &str) {
    let good = lab.hypervisor.image();
    let hanging = "#!/bin/sh\nexec sleep infinity\n";
    let broken = good.clone().with_bytes("/usr/bin/spillway", hanging, 0o755);
    lab.hypervisor.set_image(broken).expect("the image");
    let before = alive(lab).len();
    let first = submit(lab, name, 0).await;
    until("its instance is there", 60, async || {
        (lab.hypervisor.running().len() > before).then_some(())
    })
    .await;
    lab.hypervisor.set_image(good).expect("the image");
    update(lab, name, "State=DOWN Reason=ResumeTimeout reached").await;
    let seen = node(lab, name).await;
    assert!(seen.is("DOWN") && seen.is("POWERING_UP"), "{seen:?}");
    lab.head.run("scancel", &[&first]).await.expect("scancel");
}
