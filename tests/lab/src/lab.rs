//! A whole lab: the cloud with Spillway deployed in it, a site with Slurm and the agent, and machines.

mod spec;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use spillway_core::envelope::PublicKey;
use tokio::process::Command;

use crate::cloud::Cloud;
use crate::deploy::Deployment;
use crate::emulator::root::Credentials;
use crate::head::Agent;
use crate::head::{CloudPartition, HeadNode, HeadSpec};
use crate::hypervisor::InstanceRole;
use crate::install;
use crate::network::Network;
pub use crate::region::APPLY_DOCUMENT;
use crate::region::Region;
use crate::site::{self, Site};
use crate::ssm::NodeAgent;
use spec::IMAGE_ID;
pub use spec::{BACKUP_HEAD_NODE_ID, HEAD_NODE_ID, LabSpec, binaries};

/// `CPUs` of a node in slurm.conf.
const NODE_CPUS: u32 = 2;

/// `RealMemory` of a node in slurm.conf, in MiB: less than any machine that runs a lab has.
const NODE_MEMORY_MIB: u32 = 1_000;

/// The image's place for the bundle of authorities.
const IMAGE_BUNDLE: &str = "/etc/spillway/bundle.pem";

/// One cluster in a region: the deployed stack, and the site's side of it. Dropping it kills everything in it, and the
/// region with the last lab of it; [`Lab::stop`] does so in order.
pub struct Lab {
    /// How it was made.
    pub spec: LabSpec,
    /// The site's head node.
    pub head: HeadNode,
    /// The agent on it.
    pub agent: Agent,
    /// The stand-in for the SSM agent on the head node.
    pub ssm_agent: Option<NodeAgent>,
    /// The second head node, if there is one.
    pub backup: Option<Backup>,
    /// The stack's outputs.
    pub outputs: BTreeMap<String, String>,
    /// What the head node signs with.
    pub head_user: Credentials,
    /// Who pushes policies.
    pub operator: Credentials,
    region: Arc<Region>,
}

/// The second head node: slurmctld as the backup controller, and an agent that is yet to be started.
pub struct Backup {
    /// The head node.
    pub head: HeadNode,
    /// The agent on it.
    pub agent: Agent,
    /// The stand-in for the SSM agent on it.
    pub ssm_agent: NodeAgent,
}

impl Deref for Lab {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl Lab {
    /// Starts everything, telling `progress` what is being done.
    pub async fn start(spec: LabSpec, progress: impl Fn(&str)) -> anyhow::Result<Self> {
        let say = timed(progress);
        say("installing what is missing");
        let venv = install::ensure_installed(&say)?;
        say("starting the emulator and the proxy");
        let region = Region::start(&spec.state, venv, &template()).await?;
        Self::join(Arc::new(region), spec, say).await
    }

    /// Starts another cluster in the same region, made like `self` but for what [`LabSpec::neighbour`] changes.
    pub async fn start_neighbour(
        &self,
        cluster: &str,
        progress: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let spec = self.spec.neighbour(cluster);
        Self::join(Arc::clone(&self.region), spec, timed(progress)).await
    }

    async fn join(region: Arc<Region>, spec: LabSpec, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let debian = install::ensure_slurm(spec.slurm, &say)?;
        say("deploying the SAM template with the Lambdas");
        let outputs = deploy(&spec, &region).await?;
        say("starting munge, slurmctld and the agent");
        let head_user = user(
            &spec,
            &region,
            "head-node",
            output(&outputs, "HeadNodePolicyArn")?,
        );
        let head_user = head_user.await?;
        let operator = user(
            &spec,
            &region,
            "operator",
            output(&outputs, "OperatorPolicyArn")?,
        );
        let operator = operator.await?;
        let head =
            HeadNode::start(head_spec(&spec, debian, &region.network), &region.network).await?;
        let toml =
            |head: &HeadNode, keys: &[PublicKey]| site_toml(&spec, &region, &outputs, head, keys);
        let bundle = &region.cloud.certificates.bundle;
        let config = site::install(&head, &toml(&head, &[]), bundle, &head_user)?;
        let key = create_key(client(&head, &region.cloud, &operator), &config).await?;
        let keys = [key];
        std::fs::write(&config, toml(&head, &keys)).context("write the configuration")?;
        let ssm_agent = ssm_agent(&region, &spec.head_node_ids[0], &head)?;
        let backup = match spec.head_node_ids.get(1) {
            None => None,
            Some(node_id) => {
                let backup = head.start_backup(&region.network).await?;
                site::install(&backup, &toml(&backup, &keys), bundle, &head_user)?;
                Some(Backup {
                    agent: Agent::of(&backup),
                    ssm_agent: self::ssm_agent(&region, node_id, &backup)?,
                    head: backup,
                })
            }
        };
        set_up_instances(&spec, &region, &head, &outputs)?;
        let mut agent = Agent::of(&head);
        agent.start(&BTreeMap::new())?;
        let lab = Self {
            spec,
            head,
            agent,
            ssm_agent: Some(ssm_agent),
            backup,
            outputs,
            head_user,
            operator,
            region,
        };
        say("storing the munge key, pushing the policy");
        lab.store_munge_key(&lab.head.munge_key_file()).await?;
        lab.push_policy(&config).await?;
        say("the lab is up");
        Ok(lab)
    }

    /// `kill -9` of everything on the head node. From now on its backup is the lab's head node.
    ///
    /// # Panics
    ///
    /// If there is no second head node.
    pub fn lose_head_node(&mut self) {
        let backup = self.backup.take().expect("there is a second head node");
        // What is replaced is dropped, and so killed.
        self.agent = backup.agent;
        self.ssm_agent = Some(backup.ssm_agent);
        self.head = backup.head;
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
        shared_directory(&self.network, &self.spec)
    }

    /// The client's logs, each with the name of who writes it.
    #[must_use]
    pub fn client_logs(&self) -> Vec<(&'static str, PathBuf)> {
        let hooks = self.head.spool_directory().join("spillway.log");
        vec![
            ("head node", hooks),
            ("agent", self.agent.log_file().to_owned()),
        ]
    }

    /// Copies the logs that would go with the lab into `directory`.
    pub fn keep_logs(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory).context("make a directory for the logs")?;
        let logs = self.client_logs().into_iter().map(|(_, path)| path).chain([
            self.head.slurmctld_log(),
            self.cloud.emulator.log().to_owned(),
        ]);
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

    /// Stops everything in order, the region with the last lab of it. Nothing is left then.
    pub async fn stop(mut self) {
        self.agent.stop().await;
        self.head.stop_slurmctld().await;
        if let Some(backup) = &mut self.backup {
            backup.head.stop_slurmctld().await;
        }
        if let Some(region) = Arc::into_inner(self.region) {
            region.stop().await;
        }
    }
}

/// Tells `progress` with the seconds since now.
fn timed(progress: impl Fn(&str)) -> impl Fn(&str) {
    let started = Instant::now();
    move |what| {
        progress(&format!(
            "[{:5.1} s] {what}",
            started.elapsed().as_secs_f64()
        ));
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

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sam/template.yaml")
}

async fn deploy(spec: &LabSpec, region: &Region) -> anyhow::Result<BTreeMap<String, String>> {
    let cloud = &region.cloud;
    let vpc_id = region.network.vpc_id();
    let head_cidr = format!("{}/32", region.network.bridge_address());
    let timeout = spec.function_timeout_seconds.to_string();
    let visibility = spec.queue_visibility_seconds.to_string();
    let head_node_ids = spec.head_node_ids.join(",");
    let deployment = Deployment {
        venv: &region.venv,
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
            ("ImageId", &spec.image_id),
            ("FunctionTimeoutSeconds", &timeout),
            ("QueueVisibilitySeconds", &visibility),
            ("ProtectData", "false"),
            ("UpdateRoads", &spec.update_roads),
            ("SweepSchedule", if spec.sweeps { "true" } else { "false" }),
            ("HeadNodeIds", &head_node_ids),
            ("ApplyDocumentName", APPLY_DOCUMENT),
        ],
    };
    let root = cloud.emulator.root();
    Ok(deployment.deploy(&root, cloud.proxy.principals()).await?)
}

/// An IAM user of the site's with one policy.
async fn user(
    spec: &LabSpec,
    region: &Region,
    name: &str,
    policy: &str,
) -> anyhow::Result<Credentials> {
    let name = format!("{}{name}", spec.user_prefix);
    let root = region.cloud.emulator.root();
    let credentials = root.create_user(&name, &[policy]).await?;
    let principals = region.cloud.proxy.principals();
    principals.register(&credentials.access_key_id, &name);
    Ok(credentials)
}

fn ssm_agent(region: &Region, node_id: &str, head: &HeadNode) -> anyhow::Result<NodeAgent> {
    NodeAgent::start(&region.ssm, node_id, head).context("start the stand-in for the SSM agent")
}

fn head_spec(spec: &LabSpec, debian: Option<PathBuf>, network: &Network) -> HeadSpec {
    HeadSpec {
        directory: network.directory().join(format!("head-{}", spec.cluster)),
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
        has_backup: spec.head_node_ids.len() > 1,
        extra_lines: spec.slurm_lines.clone(),
    }
}

fn site_toml(
    spec: &LabSpec,
    region: &Region,
    outputs: &BTreeMap<String, String>,
    head: &HeadNode,
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
        endpoint_url: &region.cloud.proxy.url(),
        outputs,
    }
    .to_toml(head, &region.network)
}

/// What the cluster's instances boot from, and the role that they get.
fn set_up_instances(
    spec: &LabSpec,
    region: &Region,
    head: &HeadNode,
    outputs: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let bundle = std::fs::read(&region.cloud.certificates.bundle)
        .context("read the bundle of authorities")?;
    let mut image = head
        .node_image()
        .with_file("/usr/bin/spillway", spec.binaries.join("spillway"), 0o755)
        .with_bytes(IMAGE_BUNDLE, bundle, 0o644);
    let shared = shared_directory(&region.network, spec);
    std::fs::create_dir_all(&shared).context("make the shared directory")?;
    image.shared_directories.push(shared);
    image
        .environment
        .insert("AWS_ENDPOINT_URL".to_owned(), region.cloud.proxy.url());
    image
        .environment
        .insert("AWS_CA_BUNDLE".to_owned(), IMAGE_BUNDLE.to_owned());
    if spec.image_id == IMAGE_ID {
        region.hypervisor.set_image(image)?;
    } else {
        region.hypervisor.add_image(&spec.image_id, image)?;
    }
    region.roles.add(role(outputs)?);
    Ok(())
}

fn shared_directory(network: &Network, spec: &LabSpec) -> PathBuf {
    network.directory().join(format!("home-{}", spec.cluster))
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
