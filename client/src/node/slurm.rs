//! What a burst node asks of slurmctld, through `scontrol`: its settings, and the state of one node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_core::name::NodeName;
use tokio::process::Command;

use super::command::{self, CommandError};

/// scontrol waits `MessageTimeout` (10 s by default) for a slurmctld that does not answer, and tries a
/// backup controller after that.
const SCONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Printing a version takes milliseconds; the first read of a new volume may take longer.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Where Slurm's programs look when neither `SLURM_CONF` nor an option names a file (Debian, RPMs).
const DEFAULT_SLURM_CONF: &str = "/etc/slurm/slurm.conf";

/// slurmd's option for fetching its configuration from slurmctld instead of a file ("configless").
const CONF_SERVER_OPTION: &str = "--conf-server";

/// The Slurm installation of this machine.
#[derive(Debug, Clone)]
pub struct Slurm {
    conf: PathBuf,
    fetched: bool,
}

/// Settings of slurmctld, as it prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    text: String,
}

/// A node as slurmctld sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Base state and flags, such as `IDLE`, `CLOUD`, `POWERING_UP`.
    pub state: Vec<String>,
    /// Slurm's Reason, without who set it and when.
    pub reason: Option<String>,
}

/// How far slurmctld is with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// Not taken yet.
    Awaited,
    /// slurmd has registered and the node may be used.
    Taken,
    /// slurmd has registered and the node may not be used; in words for Slurm's Reason.
    Refused(String),
}

impl Slurm {
    /// With the configuration at `conf`, else where `SLURM_CONF` says, else in the usual place.
    /// `slurmd_options` tell whether slurmd fetches it from slurmctld instead.
    pub fn new(conf: Option<PathBuf>, slurmd_options: &[String]) -> Self {
        let given = conf.or_else(|| std::env::var_os("SLURM_CONF").map(PathBuf::from));
        let conf = given.unwrap_or_else(|| PathBuf::from(DEFAULT_SLURM_CONF));
        let fetched = !conf.exists()
            && slurmd_options
                .iter()
                .any(|option| option.starts_with(CONF_SERVER_OPTION));
        Self { conf, fetched }
    }

    /// The configuration file.
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// `SlurmUser` of the configuration file, if there is one that says so; packages make `slurm`.
    pub fn slurm_user(&self) -> String {
        let conf = std::fs::read_to_string(&self.conf).unwrap_or_default();
        slurm_user(&conf).unwrap_or("slurm").to_owned()
    }

    /// True if there is no configuration on this machine before slurmd has fetched it.
    pub fn is_fetched_by_slurmd(&self) -> bool {
        self.fetched
    }

    /// A program of Slurm's, told where the configuration is.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if self.fetched {
            // slurmd keeps what it fetched where every program looks by itself.
            command.env_remove("SLURM_CONF");
        } else {
            command.env("SLURM_CONF", &self.conf);
        }
        command
    }

    /// The version of the installed slurmd, as it prints it.
    pub async fn slurmd_version(&self) -> Result<String, CommandError> {
        let mut slurmd = self.command("slurmd");
        slurmd.arg("-V");
        let printed = command::run(slurmd, b"", VERSION_TIMEOUT).await?;
        Ok(printed.trim().to_owned())
    }

    /// slurmctld's settings: proof that it answers.
    pub async fn settings(&self) -> Result<Settings, CommandError> {
        let text = self.scontrol(&["show", "config"]).await?;
        Ok(Settings { text })
    }

    /// The node as slurmctld sees it.
    pub async fn node(&self, node: &NodeName) -> Result<NodeView, CommandError> {
        let text = self.scontrol(&["show", "node", node.as_str()]).await?;
        Ok(NodeView::parse(&text))
    }

    async fn scontrol(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut scontrol = self.command("scontrol");
        scontrol.args(arguments);
        command::run(scontrol, b"", SCONTROL_TIMEOUT).await
    }
}

impl Settings {
    /// The value of a key, such as `SLURM_VERSION`; none where slurmctld prints `(null)` or nothing.
    pub fn value(&self, key: &str) -> Option<&str> {
        let value = self.text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim())
        })?;
        (!value.is_empty() && value != "(null)").then_some(value)
    }

    /// The path that a key holds, with Slurm's `%n` (node) and `%h` (host) filled in.
    pub fn path(&self, key: &str, node: &NodeName, host: &str) -> Option<PathBuf> {
        let path = self.value(key)?;
        let path = path.replace("%n", node.as_str()).replace("%h", host);
        path.starts_with('/').then(|| PathBuf::from(path))
    }
}

/// A line of slurm.conf, where keys are in any case and `#` begins a comment.
fn slurm_user(conf: &str) -> Option<&str> {
    conf.lines().find_map(|line| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        let is_it = key.trim().eq_ignore_ascii_case("SlurmUser");
        is_it.then(|| value.trim().split('(').next().unwrap_or_default())
    })
}

impl NodeView {
    /// Reads `scontrol show node NAME`: `Key=value` pairs, `Reason=` up to the end of its line.
    fn parse(text: &str) -> Self {
        let mut state = Vec::new();
        let mut reason = None;
        for line in text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("Reason=") {
                let text = text.rsplit_once(" [").map_or(text, |(reason, _)| reason);
                reason = Some(text.to_owned());
            } else if let Some(flags) = line
                .split_whitespace()
                .find_map(|pair| pair.strip_prefix("State="))
            {
                state = flags
                    .split('+')
                    .map(|flag| {
                        flag.trim_end_matches(|c: char| !c.is_alphanumeric())
                            .to_owned()
                    })
                    .collect();
                if flags.contains('*') {
                    state.push("NOT_RESPONDING".to_owned());
                }
            }
        }
        Self { state, reason }
    }

    /// Whether any of the flags is set.
    fn has(&self, flags: &[&str]) -> bool {
        self.state.iter().any(|own| flags.contains(&own.as_str()))
    }

    /// How far slurmctld is with the registration of the node's slurmd.
    ///
    /// While powering up, slurmctld ignores a slurmd that booted before the resume request and keeps
    /// `POWERING_UP` and `NOT_RESPONDING`; both go when it takes the registration (22.05 to 26.05).
    pub fn registration(&self) -> Registration {
        let waiting = [
            "POWERING_UP",
            "POWER_UP",
            "POWERED_DOWN",
            "POWERING_DOWN",
            "POWER_DOWN",
            "NOT_RESPONDING",
            "UNKNOWN",
        ];
        let why = || self.reason.clone().unwrap_or_else(|| self.state.join("+"));
        if self.has(&["INVALID_REG", "INVAL"]) {
            Registration::Refused(format!(
                "slurmctld finds slurmd's registration invalid: {}",
                why()
            ))
        } else if self.state.is_empty() || self.has(&waiting) {
            Registration::Awaited
        } else if self.has(&["DOWN"]) {
            Registration::Refused(format!("slurmctld holds the node down: {}", why()))
        } else {
            Registration::Taken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 22.05.8, cut.
    const CONFIG_22_05: &str = "\
Configuration data as of 2026-11-23T12:00:00
AccountingStorageBackupHost = (null)
SLURM_CONF              = /etc/slurm/slurm.conf
SLURM_VERSION           = 22.05.8
SlurmdPidFile           = /run/slurmd-%n.pid
SlurmdSpoolDir          = /var/spool/slurmd/%h-%n
SlurmdLogFile           = (null)

Slurmctld(primary) at head is UP
";

    const NODE_22_05: &str = "\
NodeName=aws-0 CoresPerSocket=1 
   CPUAlloc=0 CPUTot=1 CPULoad=N/A
   AvailableFeatures=(null)
   ActiveFeatures=(null)
   Gres=(null)
   NodeAddr=10.0.161.71 NodeHostName=aws-0 
   RealMemory=1 AllocMem=0 FreeMem=N/A Sockets=1 Boards=1
   State=IDLE+CLOUD+NOT_RESPONDING+POWERING_UP ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   Partitions=aws 
   BootTime=None SlurmdStartTime=None
   LastBusyTime=2026-11-23T12:00:00
   CfgTRES=cpu=1,mem=1M,billing=1
   AllocTRES=
";

    const NODE_24_11: &str = "\
NodeName=aws-1 Arch=x86_64 CoresPerSocket=1 
   CPUAlloc=0 CPUEfctv=1 CPUTot=1 CPULoad=0.34
   NodeAddr=10.0.161.72 NodeHostName=aws-1 Version=24.11.5
   State=IDLE+CLOUD+DRAIN+INVALID_REG ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   BootTime=2026-11-23T12:00:00 SlurmdStartTime=2026-11-23T12:00:01
   LastBusyTime=2026-11-23T12:00:01 ResumeAfterTime=None
   Reason=Low RealMemory (reported:100 < 90.00% of configured:200) [slurm@2026-11-23T12:00:01]
   Extra=(null)
";

    fn in_state(state: &str) -> NodeView {
        NodeView::parse(&format!("NodeName=n State={state} Weight=1\n"))
    }

    #[test]
    fn the_slurm_user_is_read_from_slurm_conf() {
        let conf = "ClusterName=lab\n#SlurmUser=root\nslurmuser = hpc # ours\n";
        assert_eq!(slurm_user(conf), Some("hpc"));
        assert_eq!(slurm_user("#SlurmUser=root\n"), None);
    }

    #[test]
    fn settings_are_found_by_key() {
        let settings = Settings {
            text: CONFIG_22_05.to_owned(),
        };
        let node = NodeName::new("aws-0").unwrap();
        assert_eq!(settings.value("SLURM_VERSION"), Some("22.05.8"));
        assert_eq!(settings.value("SlurmdLogFile"), None);
        assert_eq!(settings.value("SlurmdSpool"), None);
        assert_eq!(
            settings.path("SlurmdSpoolDir", &node, "ip-10-0-0-1"),
            Some(PathBuf::from("/var/spool/slurmd/ip-10-0-0-1-aws-0"))
        );
    }

    #[test]
    fn a_node_that_powers_up_is_awaited() {
        let view = NodeView::parse(NODE_22_05);
        assert_eq!(
            view.state,
            ["IDLE", "CLOUD", "NOT_RESPONDING", "POWERING_UP"]
        );
        assert_eq!(view.reason, None);
        assert_eq!(view.registration(), Registration::Awaited);
    }

    #[test]
    fn an_invalid_registration_is_refused_with_slurms_reason() {
        let view = NodeView::parse(NODE_24_11);
        let Registration::Refused(reason) = view.registration() else {
            panic!("{view:?}");
        };
        assert_eq!(
            reason,
            "slurmctld finds slurmd's registration invalid: Low RealMemory (reported:100 < 90.00% of configured:200)"
        );
    }

    #[test]
    fn flags_decide_and_not_whole_states() {
        for state in [
            "IDLE+CLOUD",
            "MIXED+CLOUD",
            "ALLOCATED+CLOUD+DRAIN",
            "IDLE+CLOUD+COMPLETING",
        ] {
            assert_eq!(
                in_state(state).registration(),
                Registration::Taken,
                "{state}"
            );
        }
        for state in [
            "IDLE+CLOUD+POWER_UP+POWERED_DOWN",
            "DOWN+CLOUD+POWERED_DOWN",
            "DOWN+CLOUD+NOT_RESPONDING+POWERING_UP",
            "DOWN*+CLOUD",
            "ALLOCATED+CLOUD+NOT_RESPONDING",
            "UNKNOWN+CLOUD",
        ] {
            assert_eq!(
                in_state(state).registration(),
                Registration::Awaited,
                "{state}"
            );
        }
        assert_eq!(
            in_state("DOWN+CLOUD").registration(),
            Registration::Refused("slurmctld holds the node down: DOWN+CLOUD".to_owned())
        );
    }

    #[test]
    fn without_a_state_nothing_is_assumed() {
        assert_eq!(NodeView::parse("").registration(), Registration::Awaited);
    }
}
