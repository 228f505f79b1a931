//! A whole lab: the cloud with Spillway deployed in it, a site with Slurm and the agent, and machines.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use spillway_core::envelope::PublicKey;
use spillway_world::ec2::{Ec2, Settings, Subnet};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::authorize::Authorizer;
use crate::cloud::Cloud;
use crate::deploy::{Deployment, FUNCTIONS};
use crate::ec2_api::Ec2Api;
use crate::emulator::root::{Credentials, RootClient};
use crate::event_bus::EventBus;
use crate::head::Agent;
use crate::head::{CloudPartition, HeadNode, HeadSpec};
use crate::hypervisor::{Hypervisor, InstanceRole};
use crate::install::{self, SlurmRelease};
use crate::instances::{EmulatorSessions, EmulatorTemplates, Instances};
use crate::network::Network;
use crate::site::{self, Site};
use crate::ssm::{self, Document, NodeAgent, Ssm};

/// What can be said of a lab before it starts.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Where journal, certificates, logs and the emulator's state go; made if absent.
    pub state: PathBuf,
    /// The directory with the built binaries.
    pub binaries: PathBuf,
    /// `ClusterName`.
    pub cluster: String,
    /// How many CLOUD nodes.
    pub nodes: u32,
    /// Slurm's ResumeTimeout.
    pub resume_timeout_seconds: u32,
    /// Idle seconds until Slurm suspends a node.
    pub suspend_time_seconds: u32,
    /// Slurm's SuspendTimeout.
    pub suspend_timeout_seconds: u32,
    /// Time-out of the Lambdas. Short here, so that a test need not wait long for a redelivery.
    pub function_timeout_seconds: u32,
    /// Visibility time-out of the queues.
    pub queue_visibility_seconds: u32,
    /// How many zones the node group may use; with one zone and one type the launch is RunInstances.
    pub zones: usize,
    /// Candidate instance types of the node group.
    pub instance_types: Vec<String>,
    /// Capacity kinds in order.
    pub capacity: Vec<String>,
    /// `UpdateRoads`: how updates reach the head node.
    pub update_roads: String,
    /// `SweepSchedule`: whether there is a sweep every minute. A test asks for its sweeps itself.
    pub sweeps: bool,
    /// `max_nodes` of the cluster's limits.
    pub max_nodes: u32,
    /// Which Slurm runs on the head node and on the instances.
    pub slurm: SlurmRelease,
    /// More lines of slurm.conf.
    pub slurm_lines: Vec<String>,
}

impl LabSpec {
    /// A lab of 8 nodes whose times suit a person who watches, with its state below `state`.
    pub fn new(state: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            state: state.to_owned(),
            binaries: binaries()?,
            cluster: "lab".to_owned(),
            nodes: 8,
            resume_timeout_seconds: 120,
            suspend_time_seconds: 20,
            suspend_timeout_seconds: 10,
            function_timeout_seconds: 20,
            queue_visibility_seconds: 25,
            zones: 2,
            instance_types: site::INSTANCE_TYPES.map(str::to_owned).to_vec(),
            capacity: vec!["on-demand".to_owned()],
            update_roads: "both".to_owned(),
            sweeps: true,
            max_nodes: 64,
            slurm: SlurmRelease::default(),
            slurm_lines: Vec::new(),
        })
    }

    fn node_list(&self) -> String {
        format!("cloud-[0-{}]", self.nodes - 1)
    }
}

/// The head node as a managed node of SSM.
pub const HEAD_NODE_ID: &str = "mi-0123456789abcdef0";

/// The SSM document of the lab: the emulator's CloudFormation cannot make it, so the lab's SSM is given it.
pub const APPLY_DOCUMENT: &str = "lab-apply";

/// `CPUs` of a node in slurm.conf.
const NODE_CPUS: u32 = 2;

/// `RealMemory` of a node in slurm.conf, in MiB: less than any machine that runs a lab has.
const NODE_MEMORY_MIB: u32 = 1_000;

/// The image's place for the bundle of authorities.
const IMAGE_BUNDLE: &str = "/etc/spillway/bundle.pem";

/// Where `cargo build` put the binaries: beside the program that asks, or above a test's `deps`.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let mut directory = own.parent().context("this program has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("`deps` has no parent")?;
    }
    for name in ["spillway"].into_iter().chain(FUNCTIONS) {
        if !directory.join(name).exists() {
            bail!("no {name} in {}: run `make build`", directory.display());
        }
    }
    Ok(directory.to_owned())
}

/// A running lab. Dropping it kills everything in it; [`Lab::stop`] does so in order.
pub struct Lab {
    /// How it was made.
    pub spec: LabSpec,
    /// What everything runs on.
    pub network: Network,
    /// Emulator and proxy.
    pub cloud: Cloud,
    /// The lab's EC2.
    pub ec2: Ec2Api,
    /// By which EC2's events come.
    pub bus: Arc<EventBus>,
    /// The instances' machines.
    pub hypervisor: Hypervisor,
    /// The site's head node.
    pub head: HeadNode,
    /// The agent on it.
    pub agent: Agent,
    /// The lab's Run Command.
    pub ssm: Ssm,
    /// The stand-in for the SSM agent on the head node.
    pub ssm_agent: Option<NodeAgent>,
    /// The stack's outputs.
    pub outputs: BTreeMap<String, String>,
    /// What the head node signs with.
    pub head_user: Credentials,
    /// Who pushes policies.
    pub operator: Credentials,
    /// Where instance metadata gets its role sessions.
    pub sessions: Arc<EmulatorSessions>,
    /// The Python environment with `aws`.
    pub venv: PathBuf,
    _tasks: JoinSet<()>,
    _ec2_service: JoinSet<()>,
}

impl Lab {
    /// Starts everything, telling `progress` what is being done.
    pub async fn start(spec: LabSpec, progress: impl Fn(&str)) -> anyhow::Result<Self> {
        let started = Instant::now();
        let say = |what: &str| {
            progress(&format!(
                "[{:5.1} s] {what}",
                started.elapsed().as_secs_f64()
            ));
        };
        say("installing what is missing");
        let venv = install::ensure_installed(say)?;
        let debian = install::ensure_slurm(spec.slurm, say)?;
        say("starting the emulator and the proxy");
        let network = Network::claim()?;
        let cloud = Cloud::start(&venv, &spec.state, network.bridge_address(), 0).await?;
        let root = cloud.emulator.root();
        let (ec2, address, mut service) = serve_ec2(&network, &root).await?;
        let ssm = serve_ssm(&cloud, &mut service).await?;
        let events = ec2.listen();
        cloud.proxy.route("ec2", address);
        let authorizer = Authorizer::new(root.clone(), ec2.clone());
        cloud.proxy.authorize_by(authorizer.clone());
        say("deploying the SAM template with the Lambdas");
        let outputs = deploy(&spec, &venv, &network, &cloud, &root).await?;
        say("starting munge, slurmctld and the agent");
        let head_credentials = user(
            &cloud,
            &root,
            "head-node",
            &[output(&outputs, "HeadNodePolicyArn")?],
        )
        .await?;
        let operator = user(
            &cloud,
            &root,
            "operator",
            &[output(&outputs, "OperatorPolicyArn")?],
        )
        .await?;
        let head = HeadNode::start(head_spec(&spec, debian, &network), &network).await?;
        let ssm_agent = NodeAgent::start(&ssm, HEAD_NODE_ID, &head)
            .context("start the stand-in for the SSM agent")?;
        let toml = |keys: &[PublicKey]| site_toml(&spec, &cloud, &outputs, &head, &network, keys);
        let bundle = &cloud.certificates.bundle;
        let config = site::install(&head, &toml(&[]), bundle, &head_credentials)?;
        let key = create_key(client(&head, &cloud, &operator), &config).await?;
        std::fs::write(&config, toml(&[key])).context("write the configuration")?;
        let sessions = Arc::new(EmulatorSessions {
            root: root.clone(),
            authorizer,
            principals: cloud.proxy.principals().clone(),
        });
        let (hypervisor, powered_off) =
            hypervisor(&spec, &cloud, &head, &network, Arc::clone(&sessions))?;
        let role = role(&outputs)?;
        let bus = Arc::new(EventBus::new(root));
        let instances = Instances {
            ec2: ec2.clone(),
            hypervisor: hypervisor.clone(),
            bus: Arc::clone(&bus),
            role,
        };
        let tasks = instances.follow(events, powered_off);
        let mut agent = Agent::of(&head);
        agent.start(&BTreeMap::new())?;
        let lab = Self {
            spec,
            network,
            cloud,
            ec2,
            bus,
            hypervisor,
            head,
            agent,
            ssm,
            ssm_agent: Some(ssm_agent),
            outputs,
            head_user: head_credentials,
            operator,
            sessions,
            venv,
            _tasks: tasks,
            _ec2_service: service,
        };
        say("storing the munge key, pushing the policy");
        lab.store_munge_key(&lab.head.munge_key_file()).await?;
        lab.push_policy(&config).await?;
        say("the lab is up");
        Ok(lab)
    }

    /// Stores the key in `file`, in place of another, for instances to join with; with the operator's credentials.
    pub async fn store_munge_key(&self, file: &Path) -> anyhow::Result<String> {
        let mut client = self.client();
        client
            .args(["secrets", "put", "munge-key", "--replace", "--file"])
            .arg(file);
        said("spillway secrets put", &mut client).await
    }

    /// Pushes the policy in `config` with the operator's credentials.
    pub async fn push_policy(&self, config: &Path) -> anyhow::Result<String> {
        let mut client = self.client();
        client.args(["config", "push"]).arg(config);
        said("spillway config push", &mut client).await
    }

    /// The client, as the operator.
    #[must_use]
    pub fn client(&self) -> Command {
        client(&self.head, &self.cloud, &self.operator)
    }

    /// What a shell needs to act as the operator, and as root of the cluster.
    #[must_use]
    pub fn operator_environment(&self) -> BTreeMap<String, String> {
        operator_environment(&self.head, &self.cloud, &self.operator)
    }

    /// One of the stack's outputs.
    pub fn output(&self, name: &str) -> anyhow::Result<&str> {
        output(&self.outputs, name)
    }

    /// The head node's credentials file.
    #[must_use]
    pub fn head_credentials(&self) -> PathBuf {
        self.head.directory().join("etc/credentials")
    }

    /// The site's shared file system: the same directory on the head node and on every instance.
    #[must_use]
    pub fn shared_directory(&self) -> PathBuf {
        shared_directory(&self.network)
    }

    /// The client's logs, each with the name of who writes it.
    #[must_use]
    pub fn client_logs(&self) -> Vec<(&'static str, PathBuf)> {
        let hooks = self.head.directory().join("spool/spillway.log");
        vec![
            ("head node", hooks),
            ("agent", self.agent.log_file().to_owned()),
        ]
    }

    /// Copies the logs that would go with the lab into `directory`.
    pub fn keep_logs(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory).context("make a directory for the logs")?;
        let logs = self
            .client_logs()
            .into_iter()
            .map(|(_, path)| path)
            .chain([self.head.slurmctld_log()]);
        for log in logs.filter(|log| log.exists()) {
            let name = log.file_name().context("a log has a name")?;
            std::fs::copy(&log, directory.join(name))
                .with_context(|| format!("keep {}", log.display()))?;
        }
        let ids: Vec<String> = self
            .ec2
            .with(|ec2, _| ec2.instances().map(|i| i.instance_id.clone()).collect());
        for id in ids {
            if let Some(console) = self.hypervisor.console_output(&id) {
                std::fs::write(directory.join(format!("console-{id}.log")), console)
                    .context("keep a console")?;
            }
        }
        Ok(())
    }

    /// Stops everything in order. Nothing is left.
    pub async fn stop(mut self) {
        self.agent.stop().await;
        self.head.stop_slurmctld().await;
        for instance_id in self.hypervisor.running() {
            self.hypervisor.kill(&instance_id).await;
        }
        self.cloud.stop().await;
    }
}

/// What a command said that must succeed.
async fn said(name: &str, command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .await
        .with_context(|| format!("run {name}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if !output.status.success() {
        bail!("{name} failed: {text}");
    }
    Ok(text)
}

/// The lab's EC2, with the network's subnets, on a loopback port.
async fn serve_ec2(
    network: &Network,
    root: &RootClient,
) -> anyhow::Result<(Ec2Api, SocketAddr, JoinSet<()>)> {
    let mut model = Ec2::new(Settings::default(), u64::from(std::process::id()));
    for subnet in network.subnets() {
        let cidr = format!("{}/{}", subnet.base, subnet.prefix_length);
        let subnet = Subnet::new(
            &subnet.subnet_id,
            &network.vpc_id(),
            &subnet.availability_zone,
            &cidr,
        )
        .map_err(|error| anyhow::anyhow!("make subnet {cidr}: {error}"))?;
        model.put_subnet(subnet);
    }
    let ec2 = Ec2Api::new(model, EmulatorTemplates(root.clone()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("listen for EC2")?;
    let address = listener.local_addr().context("listen for EC2")?;
    let mut tasks = JoinSet::new();
    tasks.spawn(ec2.clone().keep_time());
    let router = ec2.router();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the lab's EC2 stopped");
        }
    });
    Ok((ec2, address, tasks))
}

fn client(head: &HeadNode, cloud: &Cloud, operator: &Credentials) -> Command {
    let mut command = Command::new(head.client());
    command
        .env_clear()
        .envs(operator_environment(head, cloud, operator))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn operator_environment(
    head: &HeadNode,
    cloud: &Cloud,
    operator: &Credentials,
) -> BTreeMap<String, String> {
    let text = |path: &Path| path.display().to_string();
    let path = "/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let Credentials {
        access_key_id,
        secret_access_key,
        ..
    } = operator.clone();
    let variables = [
        ("PATH", path),
        ("SLURM_CONF", text(&head.slurm_conf())),
        ("AWS_ENDPOINT_URL", cloud.proxy.url()),
        ("AWS_CA_BUNDLE", text(&cloud.certificates.bundle)),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", access_key_id),
        ("AWS_SECRET_ACCESS_KEY", secret_access_key),
    ];
    let named = variables.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Makes the first signing key, as the operator does; gives its public half.
async fn create_key(mut client: Command, config: &Path) -> anyhow::Result<PublicKey> {
    let create = client
        .args(["keys", "create", "--json", "--config"])
        .arg(config);
    let output = create.output().await.context("run spillway keys create")?;
    if !output.status.success() {
        bail!(
            "spillway keys create failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read what keys create says")?;
    let public = answer["public"]
        .as_str()
        .context("keys create names no key")?;
    Ok(public.parse()?)
}

/// The lab's Run Command, with the template's document.
async fn serve_ssm(cloud: &Cloud, tasks: &mut JoinSet<()>) -> anyhow::Result<Ssm> {
    let ssm = Ssm::default();
    let document = Document::of_template(APPLY_DOCUMENT, &template(), "ApplyDocument")?;
    ssm.put_document(document);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("listen for SSM")?;
    let address = listener.local_addr().context("listen for SSM")?;
    let router = ssm.clone().router();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the lab's SSM stopped");
        }
    });
    for operation in ssm::OPERATIONS {
        cloud.proxy.route_operation("ssm", operation, address);
    }
    Ok(ssm)
}

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sam/template.yaml")
}

async fn deploy(
    spec: &LabSpec,
    venv: &Path,
    network: &Network,
    cloud: &Cloud,
    root: &RootClient,
) -> anyhow::Result<BTreeMap<String, String>> {
    let vpc_id = network.vpc_id();
    let head_cidr = format!("{}/32", network.bridge_address());
    let timeout = spec.function_timeout_seconds.to_string();
    let visibility = spec.queue_visibility_seconds.to_string();
    let deployment = Deployment {
        venv,
        state: &spec.state.join("deploy"),
        certificates: &cloud.certificates,
        endpoint_url: &cloud.proxy.url(),
        template: &template(),
        binaries: &spec.binaries,
        stack_name: &spec.cluster,
        parameters: &[
            ("ClusterName", &spec.cluster),
            ("VpcId", &vpc_id),
            ("HeadNodeCidr", &head_cidr),
            ("ImageId", "ami-0123456789abcdef0"),
            ("FunctionTimeoutSeconds", &timeout),
            ("QueueVisibilitySeconds", &visibility),
            ("ProtectData", "false"),
            ("UpdateRoads", &spec.update_roads),
            ("SweepSchedule", if spec.sweeps { "true" } else { "false" }),
            ("HeadNodeIds", HEAD_NODE_ID),
            ("ApplyDocumentName", APPLY_DOCUMENT),
        ],
    };
    Ok(deployment.deploy(root, cloud.proxy.principals()).await?)
}

async fn user(
    cloud: &Cloud,
    root: &RootClient,
    name: &str,
    policies: &[&str],
) -> anyhow::Result<Credentials> {
    let credentials = root.create_user(name, policies).await?;
    cloud
        .proxy
        .principals()
        .register(&credentials.access_key_id, name);
    Ok(credentials)
}

fn head_spec(spec: &LabSpec, debian: Option<PathBuf>, network: &Network) -> HeadSpec {
    HeadSpec {
        directory: network.directory().join("head"),
        debian,
        client: spec.binaries.join("spillway"),
        cluster_name: spec.cluster.clone(),
        partitions: vec![CloudPartition {
            name: site::PARTITION.to_owned(),
            nodes: spec.node_list(),
            cpus: NODE_CPUS,
            memory_mib: NODE_MEMORY_MIB,
            features: String::new(),
            suspend_time_seconds: spec.suspend_time_seconds,
            is_default: true,
        }],
        resume_timeout_seconds: spec.resume_timeout_seconds,
        suspend_timeout_seconds: spec.suspend_timeout_seconds,
        extra_lines: spec.slurm_lines.clone(),
    }
}

fn site_toml(
    spec: &LabSpec,
    cloud: &Cloud,
    outputs: &BTreeMap<String, String>,
    head: &HeadNode,
    network: &Network,
    trusted_keys: &[PublicKey],
) -> String {
    let types: Vec<&str> = spec.instance_types.iter().map(String::as_str).collect();
    let capacity: Vec<&str> = spec.capacity.iter().map(String::as_str).collect();
    Site {
        cluster: &spec.cluster,
        nodes: &spec.node_list(),
        cpus: NODE_CPUS,
        memory_mib: NODE_MEMORY_MIB,
        resume_timeout_seconds: spec.resume_timeout_seconds,
        suspend_timeout_seconds: spec.suspend_timeout_seconds,
        instance_types: &types,
        zones: spec.zones,
        capacity: &capacity,
        max_nodes: spec.max_nodes,
        update_roads: &spec.update_roads,
        trusted_keys,
        endpoint_url: &cloud.proxy.url(),
        outputs,
    }
    .to_toml(head, network)
}

type PoweredOff = tokio::sync::mpsc::UnboundedReceiver<crate::hypervisor::PoweredOff>;

fn hypervisor(
    spec: &LabSpec,
    cloud: &Cloud,
    head: &HeadNode,
    network: &Network,
    sessions: Arc<EmulatorSessions>,
) -> anyhow::Result<(Hypervisor, PoweredOff)> {
    let bundle =
        std::fs::read(&cloud.certificates.bundle).context("read the bundle of authorities")?;
    let mut image = head
        .node_image()
        .with_file("/usr/bin/spillway", spec.binaries.join("spillway"), 0o755)
        .with_bytes(IMAGE_BUNDLE, bundle, 0o644);
    let shared = shared_directory(network);
    std::fs::create_dir_all(&shared).context("make the shared directory")?;
    image.shared_directories.push(shared);
    image
        .environment
        .insert("AWS_ENDPOINT_URL".to_owned(), cloud.proxy.url());
    image
        .environment
        .insert("AWS_CA_BUNDLE".to_owned(), IMAGE_BUNDLE.to_owned());
    Ok(Hypervisor::new(
        network,
        &network.directory().join("machines"),
        image,
        sessions,
    )?)
}

fn shared_directory(network: &Network) -> PathBuf {
    network.directory().join("home")
}

fn role(outputs: &BTreeMap<String, String>) -> anyhow::Result<InstanceRole> {
    let role_arn = output(outputs, "BurstNodeRoleArn")?.to_owned();
    let role_name = role_arn.rsplit('/').next().unwrap_or_default().to_owned();
    let instance_profile_arn = output(outputs, "BurstNodeInstanceProfileArn")?.to_owned();
    Ok(InstanceRole {
        role_arn,
        role_name,
        instance_profile_arn,
    })
}

fn output<'a>(outputs: &'a BTreeMap<String, String>, name: &str) -> anyhow::Result<&'a str> {
    outputs
        .get(name)
        .map(String::as_str)
        .with_context(|| format!("the stack has no output {name}"))
}
