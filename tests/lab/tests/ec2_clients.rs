//! The lab's EC2 driven by clients that are not ours, so that its shapes are AWS's: boto3 (the cases stand in
//! `ec2_clients.py`) and the AWS CLI.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use serde_json::Value;
use spillway_lab::ec2_api::{Ec2Api, TemplateSource, parse_launch_template_versions};
use spillway_lab::install;
use spillway_world::ec2::{
    BlockDeviceMapping, CapacityKind, Ec2, Ec2Event, InstanceProfile, InstanceState,
    LaunchTemplate, LaunchTemplateData, LaunchTemplateSpecification, MetadataOptions, Pool,
    Settings, ShutdownBehavior, Subnet, TagSpecification, Tags,
};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// A launch template as the template's burst nodes have it; the second version has other user data.
fn burst_template() -> LaunchTemplate {
    let data = |script: &str| LaunchTemplateData {
        image_id: Some("ami-0123456789abcdef0".to_owned()),
        instance_type: Some("t3.micro".to_owned()),
        user_data: Some(STANDARD.encode(script)),
        instance_profile: Some(InstanceProfile {
            arn: None,
            name: Some("burst".to_owned()),
        }),
        security_group_ids: vec!["sg-1".to_owned()],
        block_device_mappings: vec![BlockDeviceMapping {
            device_name: "/dev/xvda".to_owned(),
            volume_size: Some(20),
            encrypted: Some(true),
            ..BlockDeviceMapping::default()
        }],
        metadata_options: MetadataOptions {
            http_tokens: Some("required".to_owned()),
            http_put_response_hop_limit: Some(1),
            ..MetadataOptions::default()
        },
        shutdown_behavior: Some(ShutdownBehavior::Terminate),
        tag_specifications: vec![TagSpecification {
            resource_type: "instance".to_owned(),
            tags: Tags::from([("from-template".to_owned(), "yes".to_owned())]),
        }],
        ..LaunchTemplateData::default()
    };
    let first = data("#!/bin/sh\necho one\n");
    let mut template = LaunchTemplate::new("lt-0123456789abcdef0", "burst", first);
    template.versions.insert(2, data("#!/bin/sh\necho two\n"));
    template
}

/// Templates as they lie elsewhere, and which were asked for.
#[derive(Clone, Default)]
struct Elsewhere {
    asked: Arc<Mutex<Vec<LaunchTemplateSpecification>>>,
}

impl TemplateSource for Elsewhere {
    fn fetch<'a>(
        &'a self,
        which: &'a LaunchTemplateSpecification,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LaunchTemplate>>> {
        self.asked.lock().unwrap().push(which.clone());
        let template = burst_template();
        let named = which
            .name
            .as_ref()
            .is_none_or(|name| *name == template.name);
        let wanted = which.id.as_ref().is_none_or(|id| *id == template.id) && named;
        Box::pin(async move { Ok(wanted.then_some(template).into_iter().collect()) })
    }
}

/// An EC2 served on loopback for one test.
struct Served {
    api: Ec2Api,
    endpoint: String,
    asked: Arc<Mutex<Vec<LaunchTemplateSpecification>>>,
    _tasks: JoinSet<()>,
}

async fn serve(settings: Settings) -> Served {
    let mut ec2 = Ec2::new(settings, 1);
    for (id, zone, cidr) in [
        ("subnet-0a", "us-east-1a", "10.64.16.0/20"),
        ("subnet-0b", "us-east-1b", "10.64.32.0/20"),
        ("subnet-tiny", "us-east-1b", "172.16.0.0/28"),
    ] {
        ec2.put_subnet(Subnet::new(id, "vpc-lab", zone, cidr).unwrap());
    }
    let source = Elsewhere::default();
    let asked = source.asked.clone();
    let api = Ec2Api::new(ec2, source);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let router = api.router();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    tasks.spawn(api.clone().keep_time());
    Served {
        api,
        endpoint,
        asked,
        _tasks: tasks,
    }
}

/// Leaves an on-demand pool so much free capacity.
fn limit(api: &Ec2Api, instance_type: &str, zone: &str, free: u32) {
    let pool = Pool {
        kind: CapacityKind::OnDemand,
        instance_type: instance_type.to_owned(),
        availability_zone: zone.to_owned(),
    };
    api.with(|ec2, _| ec2.set_free_capacity(pool, Some(free)));
}

/// Quick lives, so that a test sees an instance from launch to end in moments.
fn quick() -> Settings {
    Settings {
        pending_ms: 150,
        shutting_down_ms: 150,
        ..Settings::default()
    }
}

/// The directory of the Python environment's programs: the one `SPILLWAY_PYTHON` lies in, or the lab's own,
/// which is installed if it is not there.
fn programs() -> PathBuf {
    if let Some(python) = std::env::var_os("SPILLWAY_PYTHON") {
        return Path::new(&python).parent().unwrap().to_owned();
    }
    let environment = install::ensure_installed(|line| eprintln!("{line}"))
        .expect("no Python with boto3 and the AWS CLI: set SPILLWAY_PYTHON to one (pip install boto3 awscli)");
    environment.join("bin")
}

async fn boto3(case: &str, endpoint: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ec2_clients.py");
    let output = Command::new(programs().join("python"))
        .arg(script)
        .args([case, endpoint])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {complaint}");
}

/// Runs the AWS CLI and answers its exit status, JSON output and standard error.
async fn aws(endpoint: &str, arguments: &[&str]) -> (bool, Value, String) {
    let output = Command::new(programs().join("aws"))
        .arg("ec2")
        .args(arguments)
        .args([
            "--endpoint-url",
            endpoint,
            "--region",
            "us-east-1",
            "--output",
            "json",
        ])
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.success(),
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        complaint,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_follows_an_instance_from_launch_to_end() {
    use InstanceState::{Pending, Running, ShuttingDown, Terminated};

    let served = serve(quick()).await;
    let mut events = served.api.listen();
    boto3("life", &served.endpoint).await;
    let mut states = Vec::new();
    while let Ok(Ec2Event::StateChange(change)) = events.try_recv() {
        assert_eq!(change.private_ip, Ipv4Addr::new(10, 64, 16, 4));
        states.push(change.to);
    }
    assert_eq!(states, [Pending, Running, ShuttingDown, Terminated]);
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_instances_by_filters_and_pages() {
    boto3("search", &serve(quick()).await.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_refusals() {
    let served = serve(quick()).await;
    limit(&served.api, "c6i.large", "us-east-1a", 3);
    boto3("refusals", &served.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_launches_fleets() {
    let served = serve(quick()).await;
    limit(&served.api, "c7i.large", "us-east-1a", 3);
    limit(&served.api, "c7i.large", "us-east-1b", 0);
    boto3("fleet", &served.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_a_fleet_that_was_throttled_in_the_middle() {
    let served = serve(Settings {
        throttling: true,
        ..quick()
    })
    .await;
    served
        .api
        .with(|ec2, now_ms| ec2.leave_launch_tokens(now_ms, 3));
    boto3("throttled_fleet", &served.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_what_surrounds_instances() {
    let served = serve(quick()).await;
    boto3("surroundings", &served.endpoint).await;
    let asked = served.asked.lock().unwrap();
    assert!(
        asked.contains(&LaunchTemplateSpecification::by_name("burst")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_is_throttled_by_the_default_buckets() {
    boto3(
        "limits",
        &serve(Settings {
            throttling: true,
            ..quick()
        })
        .await
        .endpoint,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_launches_describes_and_terminates() {
    let served = serve(quick()).await;
    let template = "LaunchTemplateName=burst,Version=2";
    let launch = [
        "run-instances",
        "--launch-template",
        template,
        "--subnet-id",
        "subnet-0b",
        "--count",
        "2",
    ];
    let (ok, launched, complaint) = aws(&served.endpoint, &launch).await;
    assert!(ok, "{complaint}");
    let first = launched["Instances"][0]["InstanceId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(launched["Instances"][1]["PrivateIpAddress"], "10.64.32.5");

    let describe = [
        "describe-instances",
        "--filters",
        "Name=subnet-id,Values=subnet-0?",
        "--query",
    ];
    let all = "Reservations[].Instances[].InstanceType";
    let (ok, types, complaint) = aws(&served.endpoint, &[&describe[..], &[all]].concat()).await;
    assert!(ok, "{complaint}");
    assert_eq!(types, serde_json::json!(["t3.micro", "t3.micro"]));

    let terminate = ["terminate-instances", "--instance-ids", &first];
    let (ok, changes, complaint) = aws(&served.endpoint, &terminate).await;
    assert!(ok, "{complaint}");
    assert_eq!(
        changes["TerminatingInstances"][0]["CurrentState"]["Name"],
        "shutting-down"
    );

    let unknown = [
        "terminate-instances",
        "--instance-ids",
        "i-0123456789abcdef0",
    ];
    let (ok, _, complaint) = aws(&served.endpoint, &unknown).await;
    assert!(
        !ok && complaint.contains("(InvalidInstanceID.NotFound)"),
        "{complaint}"
    );
    let (ok, _, complaint) = aws(&served.endpoint, &["describe-volumes"]).await;
    assert!(!ok && complaint.contains("(InvalidAction)"), "{complaint}");
}

/// What the API writes of a template, the parser reads as the same template.
#[tokio::test(flavor = "multi_thread")]
async fn templates_survive_being_written_and_read() {
    let served = serve(quick()).await;
    let form = "Action=DescribeLaunchTemplateVersions&Version=2016-11-15&LaunchTemplateName=burst";
    let output = Command::new("curl")
        .args(["-sS", "-d", form, &served.endpoint])
        .output()
        .await
        .unwrap();
    let read =
        parse_launch_template_versions(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    assert_eq!(read, [burst_template()]);
}
