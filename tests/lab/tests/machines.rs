//! The hypervisor and the head node against each other, with the test in the place of the cloud between them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use futures::FutureExt;
use futures::future::BoxFuture;
use spillway_lab::head::{CloudPartition, HeadError, HeadNode, HeadSpec};
use spillway_lab::hypervisor::{
    AssumeRole, Hypervisor, Image, Instance, InstanceRole, PoweredOff, SessionCredentials,
    SpotAction,
};
use spillway_lab::network::Network;
use tokio::sync::mpsc::UnboundedReceiver;

/// Anything that a machine does by itself is done within this, even on a busy machine of two cores.
const PATIENCE: Duration = Duration::from_mins(1);
/// What a machine's boot may take on an idle machine of two cores, until its user data runs.
const BOOT_MS_TYPICAL: u128 = 300;

/// Gives out credentials that say how often they were asked for.
#[derive(Default)]
struct CountedSessions(AtomicUsize);

impl AssumeRole for CountedSessions {
    fn assume_role<'a>(
        &'a self,
        role_arn: &'a str,
        session_name: &'a str,
    ) -> BoxFuture<'a, Result<SessionCredentials, String>> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        async move {
            Ok(SessionCredentials {
                access_key_id: format!("ASIA{number}"),
                secret_access_key: role_arn.to_owned(),
                session_token: session_name.to_owned(),
                expiration: "2099-01-01T00:00:00Z".to_owned(),
                lifetime: Duration::from_hours(1),
            })
        }
        .boxed()
    }
}

fn instance(network: &Network, number: u8, user_data: &str) -> Instance {
    let subnet = &network.subnets()[0];
    let [a, b, c, _] = subnet.base.octets();
    Instance {
        instance_id: format!("i-{number:017x}"),
        image_id: "ami-0123456789abcdef0".to_owned(),
        instance_type: "c7i.large".to_owned(),
        architecture: "x86_64".to_owned(),
        private_ip: [a, b, c, number].into(),
        availability_zone: subnet.availability_zone.clone(),
        region: "us-east-1".to_owned(),
        account_id: "000000000000".to_owned(),
        subnet_id: subnet.subnet_id.clone(),
        vpc_id: network.vpc_id(),
        life_cycle: "on-demand".to_owned(),
        metadata_tags: Some(BTreeMap::from([("Name".to_owned(), "aws-0".to_owned())])),
        role: Some(InstanceRole {
            role_arn: "arn:aws:iam::000000000000:role/node".to_owned(),
            role_name: "node".to_owned(),
            instance_profile_arn: "arn:aws:iam::000000000000:instance-profile/node".to_owned(),
        }),
        user_data: Some(base64::engine::general_purpose::STANDARD.encode(user_data)),
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn console_shows(hypervisor: &Hypervisor, instance_id: &str, text: &str) -> String {
    until(
        &format!("the console of {instance_id} shows {text:?}"),
        async || {
            let console = hypervisor.console_output(instance_id)?;
            let console = String::from_utf8_lossy(&console).into_owned();
            console.contains(text).then_some(console)
        },
    )
    .await
}

/// Runs `script` in the machine with `sh`, returns its output.
async fn inside(hypervisor: &Hypervisor, instance_id: &str, script: &str) -> String {
    let mut command = hypervisor
        .command(instance_id, "/bin/sh")
        .expect("the machine runs");
    let output = command
        .args(["-c", script])
        .output()
        .await
        .expect("nsenter runs");
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What a lab could leave behind: namespaces, links, mounts, and processes whose root or network is a machine's.
fn left_behind(network_id: u8, directory: &Path) -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    };
    let directory = directory.display().to_string();
    let namespaces = names("/run/netns");
    let links = names("/sys/class/net");
    let mut left: Vec<String> = namespaces
        .into_iter()
        .filter(|name| name.starts_with(&format!("swlab{network_id}-")))
        .collect();
    left.extend(
        links
            .into_iter()
            .filter(|name| name.starts_with(&format!("sw{network_id}v"))),
    );
    for process in names("/proc") {
        let Ok(root) = fs::read_link(format!("/proc/{process}/root")) else {
            continue;
        };
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        if root.starts_with(&directory) || mounts.contains(&directory) {
            left.push(format!("process {process}"));
        }
    }
    left
}

/// A lab that is a hypervisor only.
struct Machines {
    // Dropped in this order: machines, their files, the network.
    hypervisor: Hypervisor,
    powered_off: UnboundedReceiver<PoweredOff>,
    directory: tempfile::TempDir,
    network: Network,
    sessions: Arc<CountedSessions>,
}

impl Machines {
    fn new(image: Image) -> Self {
        let network = Network::claim().expect("a free lab");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sessions = Arc::new(CountedSessions::default());
        let assume_role: Arc<dyn AssumeRole> = sessions.clone();
        let made = Hypervisor::new(&network, directory.path(), image, assume_role);
        let (hypervisor, powered_off) = made.expect("a hypervisor");
        Self {
            hypervisor,
            powered_off,
            directory,
            network,
            sessions,
        }
    }

    /// Boots instance `number` and returns its id.
    async fn boot(&self, number: u8, user_data: &str) -> String {
        let instance = instance(&self.network, number, user_data);
        let instance_id = instance.instance_id.clone();
        self.hypervisor.boot(instance).await.expect("boots");
        instance_id
    }

    fn left_behind(&self) -> Vec<String> {
        left_behind(self.network.id(), self.directory.path())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_has_its_own_name_files_processes_and_address() {
    let image = Image {
        environment: BTreeMap::from([("FLAVOUR".to_owned(), "vanilla".to_owned())]),
        ..Image::default()
    }
    .with_bytes("/etc/flavour", "from the image\n", 0o640)
    .with_file("/usr/sbin/copied", "/bin/true", 0o755);
    let lab = Machines::new(image);
    let hypervisor = &lab.hypervisor;

    let started = Instant::now();
    let one = lab
        .boot(
            5,
            "#!/bin/sh\necho runs as $(id -un) on $(hostname) with $FLAVOUR\n",
        )
        .await;
    let console = console_shows(hypervisor, &one, "user data ended with status 0").await;
    let boot_ms = started.elapsed().as_millis();
    println!("booted, user data run, in {boot_ms} ms (typically under {BOOT_MS_TYPICAL} ms)");
    let host = instance(&lab.network, 5, "").host_name();
    assert!(
        console.contains(&format!("runs as root on {host} with vanilla")),
        "{console}"
    );
    let two = lab.boot(6, "not a script").await;
    let second = instance(&lab.network, 6, "");
    assert!(
        hypervisor.boot(second.clone()).await.is_err(),
        "one machine an instance"
    );
    assert_eq!(hypervisor.running(), [one.clone(), two.clone()]);

    let files = inside(
        hypervisor,
        &one,
        "stat -c %a-%U /etc/flavour /; cat /etc/flavour",
    )
    .await;
    assert_eq!(files, "640-root\n755-root\nfrom the image");
    inside(
        hypervisor,
        &one,
        "copied && touch /etc/mine /tmp/mine /run/mine",
    )
    .await;
    assert!(!Path::new("/etc/mine").exists() && !Path::new("/tmp/mine").exists());
    let seen = inside(
        hypervisor,
        &two,
        "ls /etc/mine /tmp/mine /run/mine 2>/dev/null; :",
    )
    .await;
    assert_eq!(seen, "");
    let processes = inside(hypervisor, &one, "ls -d /proc/[0-9]* | wc -l").await;
    let processes: usize = processes.parse().expect("a number");
    assert!(
        processes < 8,
        "{processes} processes in the machine: it sees those of others"
    );
    // Machines reach each other and the lab by their own addresses: a refusal comes from the host itself.
    for address in [second.private_ip, lab.network.bridge_address()] {
        let connect = format!("bash -c '</dev/tcp/{address}/9' 2>&1 || true");
        let refused = inside(hypervisor, &one, &connect).await;
        assert!(refused.contains("Connection refused"), "{refused}");
    }

    assert!(hypervisor.kill(&one).await && hypervisor.kill(&two).await);
    assert!(
        hypervisor.console_output(&one).is_some(),
        "the console outlives the machine"
    );
    assert_eq!(lab.left_behind(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_powers_itself_off_is_reported_and_its_address_serves_again() {
    let mut lab = Machines::new(Image::default());
    // It looks for what EC2 calls an instance-initiated shutdown: `shutdown` run by the user data.
    let id = lab
        .boot(5, "#!/bin/sh\nsleep 1000 &\nshutdown -h now\nsleep 1000\n")
        .await;
    let told = tokio::time::timeout(PATIENCE, lab.powered_off.recv()).await;
    assert_eq!(
        told.expect("told in time").expect("a message").instance_id,
        id
    );
    assert!(lab.hypervisor.kill(&id).await);
    assert!(!lab.hypervisor.kill(&id).await, "killing twice is harmless");
    let again = lab.boot(5, "#!/bin/sh\nsleep 1000\n").await;
    let host = inside(&lab.hypervisor, &again, "hostname").await;
    assert_eq!(host, instance(&lab.network, 5, "").host_name());
    assert!(lab.hypervisor.kill(&again).await);
    assert!(
        lab.powered_off.try_recv().is_err(),
        "a kill is no power-off"
    );
    assert_eq!(lab.left_behind(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_metadata_is_as_ec2s() {
    let lab = Machines::new(Image::default());
    let id = lab.boot(5, "#!/bin/sh\ntrue\n").await;
    metadata_is_ec2s(&lab.hypervisor, &id, &lab.sessions).await;
}

async fn metadata_is_ec2s(hypervisor: &Hypervisor, instance_id: &str, sessions: &CountedSessions) {
    const GET: &str = "get() { curl -s -o /tmp/body -w '%{http_code} ' -H \"X-aws-ec2-metadata-token: $T\" \
        http://169.254.169.254/latest/$1; cat /tmp/body; echo; }
        T=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)\n";
    let get = async |paths: &str| {
        inside(
            hypervisor,
            instance_id,
            &format!("{GET}for p in {paths}; do get $p; done"),
        )
        .await
    };

    assert!(
        inside(
            hypervisor,
            instance_id,
            &format!("{GET}T=wrong; get meta-data/instance-id")
        )
        .await
        .starts_with("401")
    );
    let no_ttl =
        "curl -s -o /dev/null -w '%{http_code}' -X PUT http://169.254.169.254/latest/api/token";
    assert_eq!(inside(hypervisor, instance_id, no_ttl).await, "400");
    let paths = "meta-data/instance-id meta-data/placement/ meta-data/tags/instance meta-data/tags/instance/Name \
        meta-data/spot/instance-action meta-data/iam/security-credentials/ meta-data/no";
    let expected = format!(
        "200 {instance_id}\n200 availability-zone\nregion\n200 Name\n200 aws-0\n404 \n200 node\n404"
    );
    assert_eq!(get(paths).await, expected);
    assert!(get("user-data").await.starts_with("200 #!/bin/sh\n"));
    let document = get("dynamic/instance-identity/document").await;
    let document: serde_json::Value =
        serde_json::from_str(document.trim_start_matches("200 ")).expect("JSON");
    assert_eq!(document["instanceId"], instance_id);
    assert_eq!(document["region"], "us-east-1");

    let action = SpotAction {
        action: "terminate".to_owned(),
        time: "2026-11-23T08:22:00Z".to_owned(),
    };
    hypervisor
        .set_spot_action(instance_id, Some(&action))
        .expect("runs");
    hypervisor
        .set_rebalance_notice(instance_id, "2026-11-23T08:20:00Z")
        .expect("runs");
    let shown =
        get("meta-data/spot/instance-action meta-data/events/recommendations/rebalance").await;
    assert_eq!(
        shown,
        "200 {\"action\":\"terminate\",\"time\":\"2026-11-23T08:22:00Z\"}\n200 {\"noticeTime\":\"2026-11-23T08:20:00Z\"}"
    );

    let credentials =
        get("meta-data/iam/security-credentials/node meta-data/iam/security-credentials/node")
            .await;
    assert_eq!(
        credentials.matches("\"AccessKeyId\":\"ASIA0\"").count(),
        2,
        "cached: {credentials}"
    );
    assert!(
        credentials.contains(&format!("\"Token\":\"{instance_id}\"")),
        "{credentials}"
    );
    assert_eq!(sessions.0.load(Ordering::SeqCst), 1);
}

fn head_spec(network: &Network) -> HeadSpec {
    let directory = network.directory().join("head");
    let client = network.directory().join("stand-in");
    // The client's place is taken by a script: the test itself plays everything beyond it.
    let script = "#!/bin/sh\necho \"${0##*/} $1 $(cat \"$SLURM_RESUME_FILE\" 2>/dev/null)\" >>\"${0%/bin/*}/state/calls\"\n";
    fs::write(&client, script).expect("write the stand-in");
    HeadSpec {
        directory,
        debian: None,
        client,
        cluster_name: format!("lab{}", network.id()),
        partitions: vec![CloudPartition {
            name: "aws".to_owned(),
            nodes: "aws-[0-1]".to_owned(),
            cpus: 2,
            memory_mib: 1024,
            features: String::new(),
            suspend_time_seconds: 3600,
            is_default: true,
        }],
        resume_timeout_seconds: 120,
        suspend_timeout_seconds: 5,
        has_backup: false,
        extra_lines: Vec::new(),
    }
}

/// What the agent does when it is told an address.
async fn give_address(head: &HeadNode, node: &str, instance: &Instance) {
    let address = instance.private_ip.to_string();
    let update = [
        "update",
        &format!("NodeName={node}"),
        &format!("NodeAddr={address}"),
    ];
    head.scontrol(&update).await.expect("address set");
    let view = head.node(node).await.expect("a node");
    assert!(
        view.is("POWERING_UP") && view.node_addr == address,
        "{view:?}"
    );
}

/// With the key in it: nothing of ours runs on these machines.
fn image_of(head: &HeadNode) -> Image {
    let key = head.munge_key().to_vec();
    head.node_image()
        .with_bytes("/etc/munge/munge.key", key, 0o400)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_on_machines_that_slurm_asked_for() {
    let network = Network::claim().expect("a free lab");
    let machines = network.directory().join("machines");
    let mut head = HeadNode::start(head_spec(&network), &network)
        .await
        .expect("a head node");
    let sessions = Arc::new(CountedSessions::default());
    let (hypervisor, _powered_off) =
        Hypervisor::new(&network, &machines, image_of(&head), sessions).expect("a hypervisor");

    let mut srun = head.command("srun");
    let srun = srun
        .args(["-N2", "hostname"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let srun = srun.spawn().expect("srun starts");
    let calls = head.state_save_location().join("calls");
    let called = until("Slurm calls resume", async || {
        fs::read_to_string(&calls).ok()
    })
    .await;
    assert!(
        called.starts_with("spillway-resume aws-[0-1] {\"jobs\":[{\"job_id\":1,"),
        "{called}"
    );

    let mut ids = Vec::new();
    let mut hosts = Vec::new();
    for number in 0..2 {
        let node = instance(
            &network,
            10 + number,
            &format!("#!/bin/sh\nslurmd -b -N aws-{number}\n"),
        );
        give_address(&head, &format!("aws-{number}"), &node).await;
        ids.push(node.instance_id.clone());
        hosts.push(node.host_name());
        hypervisor.boot(node).await.expect("boots");
    }
    let finished = tokio::time::timeout(PATIENCE, srun.wait_with_output())
        .await
        .expect("in time")
        .expect("srun ends");
    let mut printed: Vec<String> = String::from_utf8_lossy(&finished.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    printed.sort();
    assert_eq!(printed, hosts, "{finished:?}");

    // Addresses live through a restart. (A job whose nodes power up *during* one loses its SLURM_NODE_ALIASES in
    // 22.05.8, and its srun finds no node by name.)
    head.restart_slurmctld().await.expect("restarts");
    let again = head
        .run("srun", &["-N2", "hostname"])
        .await
        .expect("srun runs");
    assert_eq!(again.lines().count(), 2, "{again}");

    for id in &ids {
        assert!(hypervisor.kill(id).await);
    }
    assert_eq!(left_behind(network.id(), &machines), Vec::<String>::new());
    head.kill_slurmctld();
    assert!(!head.slurmctld_runs());
    head.start_slurmctld().await.expect("starts after a crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_node_whose_programs_slurm_refuses_does_not_start() {
    let network = Network::claim().expect("a free lab");
    let mut head = HeadNode::start(head_spec(&network), &network)
        .await
        .expect("a head node");
    // Slurm does not run a program that others may write, and only its log says so.
    fs::set_permissions(head.client(), Permissions::from_mode(0o775)).expect("chmod");
    let refused = head.restart_slurmctld().await;
    assert!(
        matches!(refused, Err(HeadError::NoPowerSaving(_))),
        "{refused:?}"
    );
    fs::set_permissions(head.client(), Permissions::from_mode(0o755)).expect("chmod");
    head.restart_slurmctld().await.expect("starts again");
    let views = (
        head.node("aws-0").await.expect("a node"),
        head.node("aws-1").await.expect("a node"),
    );
    assert!(
        views.0.is("POWERED_DOWN") && views.1.is("POWERED_DOWN"),
        "{views:?}"
    );
}

/// Runs `ip` with these arguments, which must succeed.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("iproute2 is installed").success(),
        "ip {arguments}"
    );
}

#[test]
fn a_killed_labs_leftovers_are_cleared_by_the_next() {
    let network = Network::claim().expect("a free lab");
    let id = network.id();
    // Nobody else can take the number before this test does: what a killed lab leaves is made while it is held.
    let namespace = format!("swlab{id}-i-dead");
    ip(&format!("netns add {namespace}"));
    ip(&format!(
        "link add sw{id}v9 group 7200 type veth peer name eth0 netns {namespace}"
    ));
    let mut stray = Command::new("nsenter")
        .args([
            &format!("--net=/run/netns/{namespace}"),
            "--",
            "sleep",
            "600",
        ])
        .spawn()
        .expect("nsenter runs");
    let entered = Instant::now();
    while fs::read_link(format!("/proc/{}/ns/net", stray.id())).ok()
        == fs::read_link("/proc/self/ns/net").ok()
    {
        assert!(entered.elapsed() < PATIENCE, "nsenter never entered");
        std::thread::sleep(Duration::from_millis(5));
    }
    let leftover = network.directory().join("leftover");
    fs::write(&leftover, "").expect("writes");
    // Giving a number back clears it by the same steps as claiming it. (Another lab may take it at once, so only
    // what was made here is looked for.)
    drop(network);
    let status = stray.wait().expect("the stray process ends");
    assert!(!status.success(), "it was killed: {status}");
    for gone in [
        format!("/run/netns/{namespace}"),
        format!("/sys/class/net/sw{id}v9"),
    ] {
        assert!(!Path::new(&gone).exists(), "{gone} stays");
    }
    assert!(!leftover.exists());
}
