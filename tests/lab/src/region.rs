//! What an account has in a region, whoever uses it: the emulator behind its proxy, EC2 with its machines, SSM. One
//! cluster uses it, or several beside each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use spillway_world::ec2::{Ec2, Settings, Subnet};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::authorize::Authorizer;
use crate::cloud::Cloud;
use crate::ec2_api::Ec2Api;
use crate::emulator::root::RootClient;
use crate::event_bus::EventBus;
use crate::hypervisor::{Hypervisor, Image};
use crate::instances::{EmulatorSessions, EmulatorTemplates, Instances, Roles};
use crate::network::Network;
use crate::ssm::{self, Document, Ssm};

/// The SSM document of the lab: the emulator's CloudFormation cannot make it, so the lab's SSM is given it.
pub const APPLY_DOCUMENT: &str = "lab-apply";

/// A running region. Dropping it kills everything in it.
pub struct Region {
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
    /// The lab's Run Command.
    pub ssm: Ssm,
    /// Where instance metadata gets its role sessions.
    pub sessions: Arc<EmulatorSessions>,
    /// The roles that instances may have.
    pub roles: Roles,
    /// The Python environment with `aws`.
    pub venv: PathBuf,
    _tasks: JoinSet<()>,
    _services: JoinSet<()>,
}

impl Region {
    /// Starts it, with certificates, journal and the emulator's state in `state`, and the Python of `venv`. `template`
    /// holds the content of [`APPLY_DOCUMENT`].
    pub async fn start(state: &Path, venv: PathBuf, template: &Path) -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let cloud = Cloud::start(&venv, state, network.bridge_address(), 0).await?;
        let root = cloud.emulator.root();
        let (ec2, address, mut services) = serve_ec2(&network, &root).await?;
        let ssm = serve_ssm(&cloud, template, &mut services).await?;
        let events = ec2.listen();
        cloud.proxy.route("ec2", address);
        let authorizer = Authorizer::new(root.clone(), ec2.clone());
        cloud.proxy.authorize_by(authorizer.clone());
        let sessions = Arc::new(EmulatorSessions {
            root: root.clone(),
            authorizer,
            principals: cloud.proxy.principals().clone(),
        });
        let machines = network.directory().join("machines");
        let (hypervisor, powered_off) =
            Hypervisor::new(&network, &machines, Image::default(), sessions.clone())?;
        let roles = Roles::default();
        let bus = Arc::new(EventBus::new(root));
        let instances = Instances {
            ec2: ec2.clone(),
            hypervisor: hypervisor.clone(),
            bus: Arc::clone(&bus),
            roles: roles.clone(),
        };
        Ok(Self {
            network,
            cloud,
            ec2,
            bus,
            hypervisor,
            ssm,
            sessions,
            roles,
            venv,
            _tasks: instances.follow(events, powered_off),
            _services: services,
        })
    }

    /// Stops everything in order. Nothing is left.
    pub async fn stop(self) {
        for instance_id in self.hypervisor.running() {
            self.hypervisor.kill(&instance_id).await;
        }
        self.cloud.stop().await;
    }
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

/// The lab's Run Command, with the template's document.
async fn serve_ssm(cloud: &Cloud, template: &Path, tasks: &mut JoinSet<()>) -> anyhow::Result<Ssm> {
    let ssm = Ssm::default();
    let document = Document::of_template(APPLY_DOCUMENT, template, "ApplyDocument")?;
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
