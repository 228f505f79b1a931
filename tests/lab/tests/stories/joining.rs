//! Nodes that cannot join, and instances that cannot be had: Slurm is told why, in our words and before its own
//! ResumeTimeout; its job is free again at once, the instance is gone, and the node serves the next job.

use std::time::{Duration, Instant};

use spillway_lab::faults::Fault;
use spillway_lab::hypervisor::Image;
use spillway_lab::lab::Lab;
use spillway_world::ec2::{CapacityKind, Instance, InstanceState, Pool};

use crate::support::{
    Story, alive, arm, calls, fired, internal_error, job, job_is, launched_ever, node, pause,
    pools, powered_down, push_short_rest, set_free_capacity, submit, submit_with, until,
};

/// Slurm's ResumeTimeout in these stories. Ours ends ten seconds earlier.
const RESUME_TIMEOUT_SECONDS: u32 = 60;

/// A job is requeued within this after Slurm has our word.
const AT_ONCE_SECONDS: u64 = 5;

/// A job on one node, from its submission to its end. slurmctld 22.05 looks only every 30 s whether the nodes of a
/// batch job have booted.
const JOB_SECONDS: u64 = 90;

const CLIENT: &str = "/usr/bin/spillway";
const MUNGE_KEY: &str = "/etc/munge/munge.key";

#[tokio::test(flavor = "multi_thread")]
async fn the_image_has_no_client() {
    // Nothing of ours runs on it.
    let lab = begin("the_image_has_no_client").await;
    lab.boot_from(|image| image.without(CLIENT));
    lab.fails_and_heals(|reason| {
        assert!(
            reason.starts_with("spillway: i-")
                && reason.ends_with(" did not join in time (see its console output)"),
            "{reason}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_hangs_at_boot() {
    let lab = begin("an_instance_hangs_at_boot").await;
    let hanging = "#!/bin/sh\nexec sleep infinity\n";
    lab.boot_from(|image| image.with_bytes(CLIENT, hanging, 0o755));
    lab.fails_and_heals(|reason| {
        assert!(
            reason.starts_with("spillway: i-")
                && reason.ends_with(" did not join in time (see its console output)"),
            "{reason}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slurmd_is_of_a_newer_release() {
    let lab = begin("slurmd_is_of_a_newer_release").await;
    let newer = "#!/bin/sh\n[ \"$1\" = -V ] && echo slurm 24.11.5 && exit 0\nexit 1\n";
    lab.boot_from(|image| image.with_bytes("/usr/sbin/slurmd", newer, 0o755));
    let told_after = lab
        .fails_and_heals(|reason| {
            assert_eq!(
                reason,
                "spillway: slurmd is 24.11.5 but slurmctld is 22.05.8: slurmctld takes no newer release"
            );
        })
        .await;
    assert!(
        told_after < Duration::from_secs(25),
        "nothing was to be waited for, but Slurm was told only after {told_after:?}"
    );
}

/// No key is stored, and the image brings its own: first another cluster's, then this one's.
#[tokio::test(flavor = "multi_thread")]
async fn the_munge_key_is_another_ones() {
    let mut lab = begin("the_munge_key_is_another_ones").await;
    forget_munge_key(&lab.lab).await;
    let key = lab.lab.head.munge_key().to_vec();
    lab.good = lab.good.clone().with_bytes(MUNGE_KEY, key, 0o400);
    lab.boot_from(|image| image.with_bytes(MUNGE_KEY, [7; 128], 0o400));
    lab.fails_and_heals(|reason| {
        assert!(
            reason.ends_with(
                "slurmctld does not answer slurm-wlm 22.05.8: Zero Bytes were transmitted or received \
                 (is its munge key the cluster's?)"
            ),
            "{reason}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_munge_key() {
    let mut lab = begin("there_is_no_munge_key").await;
    forget_munge_key(&lab.lab).await;
    let key = lab.lab.head.munge_key().to_vec();
    lab.good = lab.good.clone().with_bytes(MUNGE_KEY, key, 0o400);
    let told_after = lab
        .fails_and_heals(|reason| {
            assert_eq!(
                reason,
                "spillway: there is no munge key: neither parameter /spillway/lab/munge-key nor one in the image"
            );
        })
        .await;
    assert!(
        told_after < Duration::from_secs(25),
        "nothing was to be waited for, but Slurm was told only after {told_after:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_metadata_cannot_be_closed() {
    let lab = begin("instance_metadata_cannot_be_closed").await;
    // A rule that cannot be loaded: the image's kernel has no such module, or the program is none.
    let broken =
        "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2\nexit 1\n";
    lab.boot_from(|image| image.with_bytes("/usr/sbin/nft", broken, 0o755));
    lab.fails_and_heals(|reason| {
        assert_eq!(
            reason,
            "spillway: cannot close instance metadata to jobs: nft failed: \
             Could not process rule: Operation not supported"
        );
    })
    .await;
}

/// An nft that says yes and does nothing: what is believed is what a process without rights can reach.
#[tokio::test(flavor = "multi_thread")]
async fn instance_metadata_stays_open() {
    let lab = begin("instance_metadata_stays_open").await;
    lab.boot_from(|image| image.with_bytes("/usr/sbin/nft", "#!/bin/sh\nexec cat\n", 0o755));
    lab.fails_and_heals(|reason| {
        assert_eq!(
            reason,
            "spillway: instance metadata is open to jobs: nobody reaches 169.254.169.254"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slurm_conf_leads_elsewhere() {
    let lab = begin("slurm_conf_leads_elsewhere").await;
    // TEST-NET-1: nobody is there.
    let elsewhere = "ClusterName=lab\nSlurmctldHost=head(192.0.2.1)\nSlurmUser=slurm\n\
                     MessageTimeout=5\nNodeName=cloud-[0-7] CPUs=2\n";
    lab.boot_from(|image| image.with_bytes("/etc/slurm/slurm.conf", elsewhere, 0o644));
    lab.fails_and_heals(|reason| {
        assert!(reason.contains("slurmctld does not answer"), "{reason}");
    })
    .await;
}

/// As it is at a site that stores no key.
async fn forget_munge_key(lab: &Lab) {
    let body = serde_json::json!({"Name": format!("/spillway/{}/munge-key", lab.spec.cluster)});
    let root = lab.cloud.emulator.root();
    root.json("ssm", "AmazonSSM.DeleteParameter", &body)
        .await
        .expect("the parameter was there");
}

/// A site whose instances boot from an image that is not as it should be.
struct Joining {
    lab: Story,
    good: Image,
}

async fn begin(name: &str) -> Joining {
    let lab = Story::begin(name, |spec| {
        spec.resume_timeout_seconds = RESUME_TIMEOUT_SECONDS;
    })
    .await;
    let good = lab.hypervisor.image();
    Joining { lab, good }
}

impl Joining {
    fn boot_from(&self, change: impl FnOnce(Image) -> Image) {
        self.lab
            .hypervisor
            .set_image(change(self.good.clone()))
            .expect("the image is staged");
    }

    /// A job's node fails for the reason, and serves another job once its image is good. Answers how long after
    /// the submission Slurm was told.
    async fn fails_and_heals(self, check_reason: impl FnOnce(&str)) -> Duration {
        let Self { lab, good } = self;
        let submitted = Instant::now();
        let first = submit(&lab, "cloud-0", 0).await;
        check_reason(&told_why(&lab, "cloud-0").await);
        let told_after = submitted.elapsed();
        requeued_at_once(&lab, &first).await;
        before_slurms_own_timeout(&lab, submitted);

        terminated(&lab).await;
        lab.head.run("scancel", &[&first]).await.expect("scancel");
        healed(&lab, "cloud-0").await;
        lab.hypervisor.set_image(good).expect("the image is staged");
        let second = submit(&lab, "cloud-0", 0).await;
        job_is(&lab, &second, "COMPLETED", JOB_SECONDS).await;
        assert_eq!(job(&lab, &second, "Restarts").await, "0");
        assert_eq!(launched_ever(&lab), 2, "one for each job");
        lab.end().await;
        told_after
    }
}

/// Waits until the node's Reason is ours.
async fn told_why(lab: &Lab, name: &str) -> String {
    let timeout = u64::from(lab.spec.resume_timeout_seconds);
    until("Slurm's Reason is ours", timeout, async || {
        let reason = node(lab, name).await.reason?;
        reason.starts_with("spillway: ").then_some(reason)
    })
    .await
}

async fn requeued_at_once(lab: &Lab, id: &str) {
    until("the job is requeued", AT_ONCE_SECONDS, async || {
        (job(lab, id, "Restarts").await == "1").then_some(())
    })
    .await;
    assert_eq!(job(lab, id, "JobState").await, "PENDING");
}

/// Slurm calls ResumeProgram after the submission, so its timeout ends later than this assumes.
fn before_slurms_own_timeout(lab: &Lab, submitted: Instant) {
    let timeout = Duration::from_secs(u64::from(lab.spec.resume_timeout_seconds));
    assert!(
        submitted.elapsed() < timeout,
        "told after {:?}",
        submitted.elapsed()
    );
    let log = std::fs::read_to_string(lab.head.slurmctld_log()).expect("slurmctld has a log");
    assert!(!log.contains("not resumed by ResumeTimeout"), "{log}");
}

async fn terminated(lab: &Lab) {
    until("the instance is terminated", 30, async || {
        lab.ec2
            .with(|ec2, _| {
                ec2.instances()
                    .all(|i| i.state == InstanceState::Terminated)
            })
            .then_some(())
    })
    .await;
    assert_eq!(lab.hypervisor.running(), Vec::<String>::new());
}

/// Waits until Slurm would give the node to a job again.
async fn healed(lab: &Lab, name: &str) {
    powered_down(lab, name).await;
    let view = node(lab, name).await;
    assert!(
        view.is("IDLE") && !view.is("NOT_RESPONDING") && !view.is("DRAIN"),
        "{view:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ec2_has_no_instance_to_give() {
    let lab = Story::begin("ec2_has_no_instance_to_give", |_| {}).await;
    push_short_rest(&lab).await;
    for kind in [CapacityKind::OnDemand, CapacityKind::Spot] {
        set_free_capacity(&lab, kind, Some(0));
    }
    let submitted = Instant::now();
    let requeued = submit(&lab, "cloud-0", 0).await;
    let failed = submit_with(&lab, "cloud-1", 0, "--no-requeue").await;
    for name in ["cloud-0", "cloud-1"] {
        let reason = told_why(&lab, name).await;
        assert!(
            reason.starts_with(
                "spillway: on-demand: InsufficientInstanceCapacity: We currently do not have sufficient c7i.large capacity"
            ),
            "{reason}"
        );
    }
    requeued_at_once(&lab, &requeued).await;
    job_is(&lab, &failed, "NODE_FAIL", AT_ONCE_SECONDS).await;
    assert!(
        submitted.elapsed() < Duration::from_secs(20),
        "told after {:?}",
        submitted.elapsed()
    );
    for name in ["cloud-0", "cloud-1"] {
        let view = node(&lab, name).await;
        assert!(!view.is("POWERING_UP"), "{view:?}");
    }
    assert_eq!(launched_ever(&lab), 0);

    lab.head
        .run("scancel", &[&requeued])
        .await
        .expect("scancel");
    set_free_capacity(&lab, CapacityKind::OnDemand, None);
    healed(&lab, "cloud-0").await;
    let second = submit(&lab, "cloud-0", 0).await;
    job_is(&lab, &second, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(launched_ever(&lab), 1);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_serves_what_spot_cannot() {
    let lab = Story::begin("on_demand_serves_what_spot_cannot", |spec| {
        spec.capacity = vec!["spot".to_owned(), "on-demand".to_owned()];
    })
    .await;
    // One of two comes from spot, so that the second call is for what the first one lacks.
    set_free_capacity(&lab, CapacityKind::Spot, Some(0));
    let pool = Pool {
        kind: CapacityKind::Spot,
        ..pools(&lab, CapacityKind::Spot).remove(0)
    };
    lab.ec2.with(|ec2, _| ec2.set_free_capacity(pool, Some(1)));
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(job(&lab, &id, "Restarts").await, "0", "in the same resume");

    let mut came: Vec<(CapacityKind, String, String)> = lab.ec2.with(|ec2, _| {
        let tag = |i: &Instance, key: &str| i.tags.get(key).cloned().unwrap_or_default();
        ec2.instances()
            .map(|i| {
                (
                    i.kind,
                    tag(i, "spillway:attempt"),
                    tag(i, "spillway:request"),
                )
            })
            .collect()
    });
    came.sort_by(|a, b| a.1.cmp(&b.1));
    let [(first, one, request), (second, two, same_request)] = came.as_slice() else {
        panic!("two instances for two nodes, not {came:?}");
    };
    assert_eq!((*first, one.as_str()), (CapacityKind::Spot, "1"));
    assert_eq!((*second, two.as_str()), (CapacityKind::OnDemand, "2"));
    assert_eq!(request, same_request);
    assert_eq!(calls(&lab, "CreateFleet"), 2);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_type_in_one_zone_is_run_directly() {
    let lab = Story::begin("one_type_in_one_zone_is_run_directly", |spec| {
        spec.zones = 1;
        spec.instance_types.truncate(1);
    })
    .await;
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(launched_ever(&lab), 2);
    assert_eq!(
        (calls(&lab, "RunInstances"), calls(&lab, "CreateFleet")),
        (1, 0)
    );
    lab.end().await;
}

/// slurmd would be asked for at the address that slurmctld knows: it must not run before that is the right one.
#[tokio::test(flavor = "multi_thread")]
async fn slurmd_starts_when_slurmctld_has_the_address() {
    let lab = Story::begin("slurmd_starts_when_slurmctld_has_the_address", |_| {}).await;
    let silenced = Fault {
        id: None,
        service: "sqs".to_owned(),
        operation: Some("SendMessage".to_owned()),
        principal: Some("head-node".to_owned()),
        body_contains: Some("acknowledge".to_owned()),
        times: None,
        action: internal_error(),
    };
    let faults = lab.cloud.proxy.faults();
    let silenced = faults.arm(silenced).expect("the fault is well formed");
    let id = submit(&lab, "cloud-0", 20).await;
    let instance = until("the machine waits for its turn", 60, async || {
        let instance = lab.hypervisor.running().pop()?;
        let console = console(&lab, &instance);
        console.contains("check version").then_some(instance)
    })
    .await;
    pause(3).await;
    assert_ne!(inside(&lab, &instance, "pgrep -x slurmd").await.0, 0);
    let (status, said) = inside(&lab, &instance, "spillway node check 2>&1").await;
    assert_eq!(status, 1, "it has not joined: {said}");
    assert!(
        said.contains("cannot tell whether slurmd may be started"),
        "{said}"
    );

    assert!(faults.disarm(&silenced));
    job_is(&lab, &id, "RUNNING", JOB_SECONDS).await;
    let (_, command) = inside(
        &lab,
        &instance,
        "tr '\\0' ' ' < /proc/$(cat /run/slurmd.pid)/cmdline",
    )
    .await;
    assert!(command.contains("slurmd -b -N cloud-0"), "{command}");
    let console = console(&lab, &instance);
    let at = |text: &str| {
        console
            .find(text)
            .unwrap_or_else(|| panic!("no {text:?} in {console}"))
    };
    assert!(at("slurmctld has the address of cloud-0") < at("slurmd runs for cloud-0"));
    assert!(at("slurmd runs for cloud-0") < at("node cloud-0 has joined"));

    let (status, said) = inside(&lab, &instance, "spillway node check").await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("serves cloud-0, generation"), "{said}");
    let (status, said) = inside(
        &lab,
        &instance,
        "pkill -x munged; sleep 0.5; spillway node check",
    )
    .await;
    assert_eq!(status, 1);
    assert!(
        said.contains("munge      FAILED   munge does not work"),
        "{said}"
    );
    lab.end().await;
}

/// An instance that was let go and lives on for a while does not come back as the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_released_instance_may_not_start_slurmd() {
    let lab = Story::begin("a_released_instance_may_not_start_slurmd", |_| {}).await;
    let id = submit(&lab, "cloud-0", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    let instance = alive(&lab).pop().expect("the job's instance");
    let kept = arm(
        &lab,
        "ec2",
        Some("TerminateInstances"),
        "lab-terminate",
        None,
        internal_error(),
    );
    lab.head
        .scontrol(&["update", "nodename=cloud-0", "state=power_down"])
        .await
        .expect("power down");
    fired(&lab, &kept, 1).await;
    let (status, said) = inside(&lab, &instance, "spillway node check --json").await;
    assert_eq!(status, 1, "{said}");
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["ok"], false);
    let pairing = answer["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "pairing"))
        .expect("the pairing is checked");
    assert_eq!(
        pairing["reason"],
        "this instance was released and serves cloud-0 no more"
    );
    assert!(lab.cloud.proxy.faults().disarm(&kept));
    terminated(&lab).await;
    lab.end().await;
}

/// Runs a script as root inside a machine: its exit status and what it printed.
pub async fn inside(lab: &Lab, instance_id: &str, script: &str) -> (i32, String) {
    let output = lab
        .hypervisor
        .command(instance_id, "/bin/sh")
        .expect("the machine runs")
        .args(["-c", script])
        .output()
        .await
        .expect("nsenter runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn console(lab: &Lab, instance_id: &str) -> String {
    let console = lab.hypervisor.console_output(instance_id);
    String::from_utf8_lossy(&console.unwrap_or_default()).into_owned()
}
