//! What EC2 says happens to instances, made to happen: machines boot and die, and their own shutdowns and
//! console output come back to EC2. State changes go to the rules of the event bus that match them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use spillway_world::ec2::{
    Ec2, Ec2Event, Instance as Ec2Instance, InstanceChange, InstanceState, LaunchTemplate,
    LaunchTemplateSpecification,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::authorize::Authorizer;
use crate::ec2_api::{Ec2Api, TemplateSource, parse_launch_template_versions};
use crate::emulator::root::RootClient;
use crate::event_bus::EventBus;
use crate::hypervisor::{
    AssumeRole, Hypervisor, Instance, InstanceRole, PoweredOff, SessionCredentials,
};
use crate::proxy::Principals;

/// How long a role session lasts: STS's default.
const SESSION_LIFETIME: Duration = Duration::from_hours(1);

/// The region of every lab.
const REGION: &str = "us-east-1";

/// The emulator's account.
const ACCOUNT: &str = "000000000000";

/// Launch templates that CloudFormation made in the emulator.
#[derive(Debug)]
pub struct EmulatorTemplates(pub RootClient);

impl TemplateSource for EmulatorTemplates {
    fn fetch<'a>(
        &'a self,
        which: &'a LaunchTemplateSpecification,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LaunchTemplate>>> {
        async move {
            let Some(id) = &which.id else {
                return Ok(Vec::new());
            };
            let xml = self.0.launch_template_versions(id).await?;
            Ok(parse_launch_template_versions(&xml)?)
        }
        .boxed()
    }
}

/// Role sessions from the emulator's STS. The proxy learns whose they are.
#[derive(Debug)]
pub struct EmulatorSessions {
    /// For `AssumeRole`.
    pub root: RootClient,
    /// Learns which instance a key was handed out to.
    pub authorizer: Authorizer,
    /// Gives the key the instance's id as its name in the journal.
    pub principals: Principals,
}

impl AssumeRole for EmulatorSessions {
    fn assume_role<'a>(
        &'a self,
        role_arn: &'a str,
        session_name: &'a str,
    ) -> BoxFuture<'a, Result<SessionCredentials, String>> {
        async move {
            let session = self
                .root
                .assume_role(role_arn, session_name)
                .await
                .map_err(|error| error.to_string())?;
            let key = &session.access_key_id;
            let instance_arn = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{session_name}");
            self.authorizer.handed_out(key, &instance_arn);
            self.principals.register(key, session_name);
            Ok(SessionCredentials {
                access_key_id: session.access_key_id,
                secret_access_key: session.secret_access_key,
                session_token: session.session_token.unwrap_or_default(),
                expiration: session.expiration.unwrap_or_default(),
                lifetime: SESSION_LIFETIME,
            })
        }
        .boxed()
    }
}

/// What the lab needs to know to make machines of instances.
#[derive(Clone)]
pub struct Instances {
    /// The model.
    pub ec2: Ec2Api,
    /// Where machines run.
    pub hypervisor: Hypervisor,
    /// Where EC2 tells of it.
    pub bus: Arc<EventBus>,
    /// The roles of the clusters' burst nodes.
    pub roles: Roles,
}

/// The roles that instances may have. Cheap to clone: the copies are one list.
#[derive(Debug, Clone, Default)]
pub struct Roles(Arc<Mutex<Vec<InstanceRole>>>);

impl Roles {
    /// Has instances of its profile get this role.
    pub fn add(&self, role: InstanceRole) {
        self.lock().push(role);
    }

    fn of_profile(&self, arn: &str) -> Option<InstanceRole> {
        let roles = self.lock();
        let mut of_profile = roles.iter().filter(|role| role.instance_profile_arn == arn);
        of_profile.next().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<InstanceRole>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instances {
    /// Follows EC2's events and the machines' own shutdowns until dropped.
    #[must_use]
    pub fn follow(
        self,
        mut events: mpsc::UnboundedReceiver<Ec2Event>,
        mut powered_off: mpsc::UnboundedReceiver<PoweredOff>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let shutdowns = self.ec2.clone();
        let hypervisor = self.hypervisor.clone();
        tasks.spawn(async move {
            while let Some(PoweredOff { instance_id }) = powered_off.recv().await {
                info!(instance_id, "shut itself down");
                if let Some(output) = hypervisor.console_output(&instance_id) {
                    shutdowns.with(|ec2, _| {
                        ec2.append_console(&instance_id, &String::from_utf8_lossy(&output));
                    });
                }
                shutdowns.with(|ec2, now_ms| ec2.shut_down_from_inside(now_ms, &instance_id));
            }
        });
        tasks.spawn(async move {
            let mut acts = JoinSet::new();
            while let Some(event) = events.recv().await {
                let instances = self.clone();
                acts.spawn(async move { instances.act(event).await });
                while acts.try_join_next().is_some() {}
            }
        });
        tasks
    }

    async fn act(&self, event: Ec2Event) {
        if let Ec2Event::StateChange(change) = &event {
            self.change(change).await;
        }
        self.bus.publish(&event).await;
    }

    async fn change(&self, change: &InstanceChange) {
        let instance_id = &change.instance_id;
        match change.to {
            InstanceState::Running => {
                let Some(machine) = self
                    .ec2
                    .with(|ec2, _| ec2.instance(instance_id).map(|i| self.machine(ec2, i)))
                else {
                    return;
                };
                if let Err(error) = self.hypervisor.boot(machine).await {
                    warn!(instance_id, %error, "an instance did not boot");
                }
            }
            InstanceState::ShuttingDown
            | InstanceState::Terminated
            | InstanceState::Stopping
            | InstanceState::Stopped => {
                self.hypervisor.kill(instance_id).await;
            }
            InstanceState::Pending => {}
        }
    }

    fn machine(&self, ec2: &Ec2, instance: &Ec2Instance) -> Instance {
        Instance {
            instance_id: instance.instance_id.clone(),
            image_id: instance.image_id.clone(),
            instance_type: instance.instance_type.clone(),
            architecture: "x86_64".to_owned(),
            private_ip: instance
                .private_ip
                .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
            availability_zone: instance.availability_zone.clone(),
            region: REGION.to_owned(),
            account_id: ACCOUNT.to_owned(),
            subnet_id: instance.subnet_id.clone(),
            vpc_id: instance.vpc_id.clone(),
            life_cycle: instance.kind.as_str().to_owned(),
            metadata_tags: Some(instance.tags.clone().into_iter().collect()),
            role: ec2
                .instance_profile_arn(instance)
                .and_then(|arn| self.roles.of_profile(&arn)),
            user_data: instance.user_data().map(str::to_owned),
        }
    }
}
