//! An instance as the model keeps it, and what is told of it to those who follow: state changes and notices.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{CapacityKind, Pool, Tags};
use super::template::{LaunchTemplateData, ShutdownBehavior};

/// EC2's instance states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It is being made.
    Pending,
    /// It runs.
    Running,
    /// It is being terminated.
    ShuttingDown,
    /// It is gone; Describe shows it for about an hour.
    Terminated,
    /// It is being stopped.
    Stopping,
    /// It is stopped.
    Stopped,
}

impl InstanceState {
    /// AWS's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// AWS's number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

/// Why an instance is in its state, as `StateReason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// Code, such as `Client.UserInitiatedShutdown`.
    pub code: &'static str,
    /// Sentence.
    pub message: &'static str,
}

/// `TerminateInstances` was called.
pub const USER_INITIATED: StateReason = StateReason {
    code: "Client.UserInitiatedShutdown",
    message: "Client.UserInitiatedShutdown: User initiated shutdown",
};
/// The instance shut itself down.
pub const INSTANCE_INITIATED: StateReason = StateReason {
    code: "Client.InstanceInitiatedShutdown",
    message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
};
/// EC2 took spot capacity back, terminating.
pub const SPOT_TERMINATION: StateReason = StateReason {
    code: "Server.SpotInstanceTermination",
    message: "Server.SpotInstanceTermination: Spot instance termination",
};
/// EC2 took spot capacity back, stopping.
pub const SPOT_SHUTDOWN: StateReason = StateReason {
    code: "Server.SpotInstanceShutdown",
    message: "Server.SpotInstanceShutdown: Spot Instance shutdown",
};

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`.
    pub instance_id: String,
    /// `r-…`: the launch it came from.
    pub reservation_id: String,
    /// Its number in that launch.
    pub launch_index: u32,
    /// The order of all launches of this model; pages follow it.
    pub sequence: u64,
    /// State.
    pub state: InstanceState,
    /// Why, if not by the natural course.
    pub state_reason: Option<StateReason>,
    /// When it was launched, in ms since 1970.
    pub launched_at_ms: u64,
    /// When it reached its present state.
    pub state_since_ms: u64,
    /// Instance type name.
    pub instance_type: String,
    /// On-demand or spot.
    pub kind: CapacityKind,
    /// AMI id.
    pub image_id: String,
    /// Subnet.
    pub subnet_id: String,
    /// VPC of the subnet.
    pub vpc_id: String,
    /// Zone name.
    pub availability_zone: String,
    /// Zone id.
    pub availability_zone_id: String,
    /// Private address; none once terminated, when it went back to the subnet.
    pub private_ip: Option<Ipv4Addr>,
    /// Id of the primary network interface (device 0, card 0).
    pub network_interface_id: String,
    /// Its MAC address.
    pub mac_address: String,
    /// Id of the root volume.
    pub volume_id: String,
    /// `sir-…` of a spot instance.
    pub spot_request_id: Option<String>,
    /// `fleet-…` if a fleet launched it.
    pub fleet_id: Option<String>,
    /// Client token of `RunInstances`, or one of the fleet's own.
    pub client_token: String,
    /// Tags of the instance.
    pub tags: Tags,
    /// Tags of its volumes.
    pub volume_tags: Tags,
    /// Tags of its network interface.
    pub network_interface_tags: Tags,
    /// Everything it was launched with, template and call together.
    pub launch: LaunchTemplateData,
    /// Spot: the notice given, if any.
    pub interruption: Option<Interruption>,
    /// `cr-…` of the capacity reservation or block that it runs in.
    pub capacity_reservation_id: Option<String>,
    /// When a rebalance was recommended.
    pub rebalance_at_ms: Option<u64>,
    /// What stands on its console.
    pub console: String,
    /// Its status checks fail while it runs.
    pub is_impaired: bool,
}

/// A spot interruption that has been announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When it will be done.
    pub at_ms: u64,
}

impl Instance {
    /// The pool it draws on.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool {
            kind: self.kind,
            instance_type: self.instance_type.clone(),
            availability_zone: self.availability_zone.clone(),
        }
    }

    /// What a shutdown from inside does; AWS's default is to stop.
    #[must_use]
    pub fn shutdown_behavior(&self) -> ShutdownBehavior {
        self.launch
            .shutdown_behavior
            .unwrap_or(ShutdownBehavior::Stop)
    }

    /// User data, base64.
    #[must_use]
    pub fn user_data(&self) -> Option<&str> {
        self.launch.user_data.as_deref()
    }

    /// Private DNS name in EC2's form for `region`; empty without an address.
    #[must_use]
    pub fn private_dns_name(&self, region: &str) -> String {
        let domain = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        self.private_ip
            .map(|ip| format!("ip-{}.{domain}", ip.to_string().replace('.', "-")))
            .unwrap_or_default()
    }

    /// Whether it still takes capacity and an address.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state != InstanceState::Terminated
    }
}

/// One instance went from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChange {
    /// `i-…`.
    pub instance_id: String,
    /// State before; none at launch.
    pub from: Option<InstanceState>,
    /// State now.
    pub to: InstanceState,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// Its private address; on termination the one it had.
    pub private_ip: Ipv4Addr,
    /// Its subnet.
    pub subnet_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Its type.
    pub instance_type: String,
}

/// What happens to instances, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2Event {
    /// A state change.
    StateChange(InstanceChange),
    /// Spot capacity will be taken back.
    SpotInterruptionWarning {
        /// `i-…`.
        instance_id: String,
        /// What and when.
        interruption: Interruption,
        /// When the warning is given.
        at_ms: u64,
    },
    /// Spot capacity is at greater risk.
    RebalanceRecommendation {
        /// `i-…`.
        instance_id: String,
        /// When it is recommended.
        at_ms: u64,
    },
}

impl Ec2Event {
    /// The instance it is about.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        match self {
            Self::StateChange(change) => &change.instance_id,
            Self::SpotInterruptionWarning { instance_id, .. }
            | Self::RebalanceRecommendation { instance_id, .. } => instance_id,
        }
    }

    /// When it happened, in ms since 1970.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::StateChange(change) => change.at_ms,
            Self::SpotInterruptionWarning { at_ms, .. }
            | Self::RebalanceRecommendation { at_ms, .. } => *at_ms,
        }
    }

    /// The event as EventBridge delivers it. `id` is the event's own id, which the caller chooses.
    #[must_use]
    pub fn to_event_bridge(&self, id: &str, account: &str, region: &str) -> Value {
        let instance_id = self.instance_id();
        let (detail_type, detail) = match self {
            Self::StateChange(change) => (
                "EC2 Instance State-change Notification",
                json!({"instance-id": instance_id, "state": change.to.as_str()}),
            ),
            Self::SpotInterruptionWarning { interruption, .. } => (
                "EC2 Spot Instance Interruption Warning",
                json!({"instance-id": instance_id, "instance-action": interruption.action}),
            ),
            Self::RebalanceRecommendation { .. } => (
                "EC2 Instance Rebalance Recommendation",
                json!({"instance-id": instance_id}),
            ),
        };
        json!({
            "version": "0",
            "id": id,
            "detail-type": detail_type,
            "source": "aws.ec2",
            "account": account,
            "time": format!("{:.0}", timestamp(self.at_ms())),
            "region": region,
            "resources": [format!("arn:aws:ec2:{region}:{account}:instance/{instance_id}")],
            "detail": detail,
        })
    }
}

/// A moment in ms since 1970, for writing as RFC 3339.
#[must_use]
pub fn timestamp(at_ms: u64) -> jiff::Timestamp {
    let at_ms = i64::try_from(at_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::MAX)
}
