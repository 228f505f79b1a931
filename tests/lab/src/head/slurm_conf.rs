//! The text of slurm.conf, for the head node and for the nodes.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{HeadSpec, SLURM_USER};

/// Nodes never forward messages for each other: before Slurm 23.11 fan-out needs addresses that cloud nodes' own
/// slurm.conf does not have (Slurm's cloud scheduling guide).
const TREE_WIDTH: u32 = 65533;

/// A partition of CLOUD nodes that are all alike.
#[derive(Debug, Clone)]
pub struct CloudPartition {
    /// Slurm's `PartitionName`.
    pub name: String,
    /// A hostlist expression, such as `aws-[0-9]`.
    pub nodes: String,
    /// `CPUs` of each. May be more than this machine has (`SlurmdParameters=config_overrides`).
    pub cpus: u32,
    /// `RealMemory` of each, in MiB.
    pub memory_mib: u32,
    /// `Features` of each, comma-separated; empty for none.
    pub features: String,
    /// Idle seconds until Slurm suspends a node.
    pub suspend_time_seconds: u32,
    /// True for the partition that jobs go to by default.
    pub is_default: bool,
}

/// A host that slurmctld runs on.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
}

/// Everything slurm.conf is made of.
#[derive(Debug, Clone)]
pub(super) struct SlurmConf {
    pub(super) host: Host,
    pub(super) backup: Option<Host>,
    pub(super) port: u16,
    /// `StateSaveLocation`, which both hosts see.
    pub(super) state: PathBuf,
    pub(super) spec: HeadSpec,
}

impl SlurmConf {
    /// For slurmctld and for commands beside it: with munge's own socket.
    pub(super) fn head_text(&self) -> String {
        let socket = self.spec.directory.join("munge/munge.socket");
        format!("{}AuthInfo=socket={}\n", self.node_text(), socket.display())
    }

    /// For a node, whose munged has the usual socket.
    pub(super) fn node_text(&self) -> String {
        let Self {
            host,
            backup,
            port,
            state,
            spec,
        } = self;
        let directory = spec.directory.display();
        let mut text = String::new();
        for Host { name, address } in [Some(host), backup.as_ref()].into_iter().flatten() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "SlurmctldHost={name}({address})");
        }
        let _ = write!(
            text,
            "ClusterName={cluster}
SlurmctldPort={port}
SlurmdPort=6818
SlurmUser={SLURM_USER}
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge

StateSaveLocation={state}
SlurmctldPidFile={directory}/run/slurmctld.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmctldDebug=debug
SlurmdSpoolDir=/var/spool/slurmd
SlurmdPidFile=/run/slurmd.pid
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmdDebug=debug
# The nodes' file differs from this one by munge's socket.
DebugFlags=NO_CONF_HASH,Power

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# An instance here has no cgroups of its own.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
# Else scontrol and sinfo do not know powered-down CLOUD nodes (to 22.05).
PrivateData=cloud

TreeWidth={TREE_WIDTH}
# A node's address changes with its instance.
CommunicationParameters=NoAddrCache
ResumeProgram={directory}/bin/spillway-resume
SuspendProgram={directory}/bin/spillway-suspend
ResumeFailProgram={directory}/bin/spillway-resume-fail
# The cloud side limits rates; Slurm's own would split one job's nodes over many calls.
ResumeRate=0
SuspendRate=0
ResumeTimeout={resume_timeout}
SuspendTimeout={suspend_timeout}
# Only cloud partitions are ever suspended.
SuspendTime=INFINITE
",
            cluster = spec.cluster_name,
            state = state.display(),
            resume_timeout = spec.resume_timeout_seconds,
            suspend_timeout = spec.suspend_timeout_seconds,
        );
        for partition in &spec.partitions {
            text.push_str(&partition.text());
        }
        for line in &spec.extra_lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

impl CloudPartition {
    fn text(&self) -> String {
        let Self {
            name,
            nodes,
            cpus,
            memory_mib,
            suspend_time_seconds,
            ..
        } = self;
        let features = match self.features.as_str() {
            "" => String::new(),
            features => format!(" Features={features}"),
        };
        let default = if self.is_default { "YES" } else { "NO" };
        format!(
            "\nNodeName={nodes} CPUs={cpus} RealMemory={memory_mib}{features} State=CLOUD\n\
             PartitionName={name} Nodes={nodes} Default={default} MaxTime=INFINITE State=UP \
             SuspendTime={suspend_time_seconds}\n"
        )
    }
}
