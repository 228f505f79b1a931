//! The network of one lab: its number, the bridge that is its VPC, and the namespace of each instance.
//!
//! From the lab's number follow its names and addresses, so that several labs run side by side:
//! bridge `swlab<id>` at `10.(64+id).0.1/16`, subnets `10.(64+id).16.0/20` and `10.(64+id).32.0/20`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How many labs fit beside each other: 10.64.0.0/16 to 10.127.0.0/16 (the upper half of what is left of 10/8 when
/// the common 10.0 to 10.63 of sites and containers are avoided).
pub const LAB_COUNT: u8 = 64;
/// Second octet of lab 0.
const FIRST_OCTET: u8 = 64;
/// The link-local address of EC2's instance metadata service.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// Why the lab has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All numbers are held by running labs.
    #[error("all {LAB_COUNT} labs of this machine are taken: stop one with `make down`")]
    NoFreeLab,
    /// `ip` said no.
    #[error("`ip` refused ({message}); run as root with iproute2 installed. Commands:\n{commands}")]
    Ip {
        /// What was asked, one command a line.
        commands: String,
        /// What it said.
        message: String,
    },
    /// The operating system said no.
    #[error("set up the lab's network: {0}")]
    Io(#[from] io::Error),
}

/// A subnet of the lab's VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Such as `subnet-lab3a`.
    pub subnet_id: String,
    /// Such as `us-east-1a`.
    pub availability_zone: String,
    /// First address of the block.
    pub base: Ipv4Addr,
    /// Bits of the block's mask.
    pub prefix_length: u8,
}

/// A claimed lab number with its bridge. Dropping it takes the bridge and every namespace of the lab away.
#[derive(Debug, Clone)]
pub struct Network {
    claim: Arc<Claim>,
}

#[derive(Debug)]
struct Claim {
    id: u8,
    /// An abstract socket holds the number: it lives in the network namespace, as the bridge does (a lock file would
    /// not be seen from a chroot that shares the network), and the kernel frees it when the process dies.
    _lock: UnixListener,
    next_link: AtomicU32,
}

/// The link of one instance, until [`Attachment::detach`].
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) namespace: String,
    pub(crate) mac: String,
    link: String,
}

impl Attachment {
    /// The file that stands for the namespace.
    pub(crate) fn namespace_file(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.namespace)
    }

    /// Takes the link and the namespace away. Harmless when they are gone.
    pub(crate) fn detach(&self) {
        // Each by itself: after a half-made attach, either may be missing.
        let _ = ip(&format!("link del {}\n", self.link));
        let _ = ip(&format!("netns del {}\n", self.namespace));
    }
}

impl Network {
    /// Claims the lowest free number, clears away what a killed lab of that number left, and makes the bridge.
    pub fn claim() -> Result<Self, NetworkError> {
        for id in 0..LAB_COUNT {
            let name = SocketAddr::from_abstract_name(format!("spillway-lab-{id}"))?;
            let lock = match UnixListener::bind_addr(&name) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error.into()),
            };
            let claim = Claim {
                id,
                _lock: lock,
                next_link: AtomicU32::new(0),
            };
            cleanup(id)?;
            let network = Self {
                claim: Arc::new(claim),
            };
            let bridge = network.bridge_name();
            let address = network.bridge_address();
            ip(&format!(
                "link add {bridge} type bridge\naddr add {address}/16 dev {bridge}\nlink set {bridge} up\n"
            ))?;
            if let Err(error) = fs::create_dir_all(network.directory()) {
                return Err(error.into());
            }
            return Ok(network);
        }
        Err(NetworkError::NoFreeLab)
    }

    /// The lab's number, 0 to 63.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.claim.id
    }

    /// Such as `swlab3`.
    #[must_use]
    pub fn bridge_name(&self) -> String {
        bridge_name(self.id())
    }

    /// The lab's own address, by which instances reach the head node and the cloud.
    #[must_use]
    pub fn bridge_address(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// The address of a second head node.
    #[must_use]
    pub fn backup_address(&self) -> Ipv4Addr {
        self.address(0, 2)
    }

    /// Such as `vpc-lab3`.
    #[must_use]
    pub fn vpc_id(&self) -> String {
        format!("vpc-lab{}", self.id())
    }

    /// The VPC's block, such as `10.67.0.0/16`.
    #[must_use]
    pub fn vpc_cidr(&self) -> String {
        format!("{}/16", self.address(0, 0))
    }

    /// The VPC's subnets, one a zone.
    #[must_use]
    pub fn subnets(&self) -> Vec<Subnet> {
        [('a', 16), ('b', 32)]
            .into_iter()
            .map(|(zone, third)| Subnet {
                // An id as EC2's own, which the site's configuration insists on.
                subnet_id: format!("subnet-1ab{:04x}{zone}", self.id()),
                availability_zone: format!("us-east-1{zone}"),
                base: self.address(third, 0),
                prefix_length: 20,
            })
            .collect()
    }

    /// A directory of this lab's own that every user may enter (a checkout under /root is closed to the `slurm`
    /// user), on the root file system, emptied when the number is claimed and removed when it is given back.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        directory(self.id())
    }

    fn address(&self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, FIRST_OCTET + self.id(), third, fourth)
    }

    /// Cuts all instances off at once, which is far quicker than one by one.
    pub(crate) fn delete_links(&self) {
        delete_links(self.id());
    }

    /// Makes the namespace of an instance, or of another machine: `eth0` with its private address on the bridge, and
    /// the metadata address on `lo`.
    pub(crate) fn attach(
        &self,
        instance_id: &str,
        address: Ipv4Addr,
    ) -> Result<Attachment, NetworkError> {
        let number = self.claim.next_link.fetch_add(1, Ordering::Relaxed);
        let [_, _, third, fourth] = address.octets();
        let attachment = Attachment {
            namespace: format!("{}{instance_id}", namespace_prefix(self.id())),
            // Follows from the address, so that a reused address never meets a stale neighbour entry.
            mac: format!(
                "0a:ff:0a:{:02x}:{third:02x}:{fourth:02x}",
                FIRST_OCTET + self.id()
            ),
            link: format!("{}{number}", link_prefix(self.id())),
        };
        let Attachment {
            namespace,
            mac,
            link,
        } = &attachment;
        let bridge = self.bridge_name();
        let group = link_group(self.id());
        let made = ip(&format!(
            "netns add {namespace}\n\
             link add {link} type veth peer name eth0 address {mac} netns {namespace}\n\
             link set {link} master {bridge} group {group} up\n"
        ))
        .and_then(|()| {
            ip_in(
                Some(namespace),
                &format!(
                    "link set lo up\naddr add {METADATA_ADDRESS}/32 dev lo\n\
                     addr add {address}/16 dev eth0\nlink set eth0 up\n"
                ),
            )
        });
        if let Err(error) = made {
            attachment.detach();
            return Err(error);
        }
        Ok(attachment)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = cleanup(self.id) {
            tracing::warn!(%error, lab = self.id, "could not take the lab's network away");
        }
    }
}

fn bridge_name(id: u8) -> String {
    format!("swlab{id}")
}

fn namespace_prefix(id: u8) -> String {
    format!("swlab{id}-")
}

fn link_prefix(id: u8) -> String {
    format!("sw{id}v")
}

fn directory(id: u8) -> PathBuf {
    PathBuf::from(format!("/var/lib/spillway-lab-{id}"))
}

/// The group of a lab's links, a number of ours: the kernel removes a whole group in the time of one link.
fn link_group(id: u8) -> u32 {
    7200 + u32::from(id)
}

/// Removes everything that belongs to lab `id`: processes in its namespaces, namespaces, links, bridge, directory.
/// Call it only while holding the number.
fn cleanup(id: u8) -> Result<(), NetworkError> {
    delete_links(id);
    let namespaces = names_in(NAMESPACES, &namespace_prefix(id));
    kill_all_in(&namespaces);
    if !namespaces.is_empty() {
        ip(&format!(
            "netns del {}
",
            namespaces.join(
                "
netns del "
            )
        ))?;
    }
    let bridge = bridge_name(id);
    if names_in("/sys/class/net", &bridge).contains(&bridge) {
        ip(&format!("link del {bridge}\n"))?;
    }
    match fs::remove_dir_all(directory(id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Kills every process whose network is one of these namespaces.
fn kill_all_in(namespaces: &[String]) {
    // A namespace's file and its processes' links to it are one inode. What vanishes while we look needs no kill.
    let inode = |path: String| fs::metadata(path).map(|namespace| namespace.ino()).ok();
    let inodes: HashSet<u64> = namespaces
        .iter()
        .filter_map(|name| inode(format!("{NAMESPACES}/{name}")))
        .collect();
    for process in names_in("/proc", "") {
        if let Ok(pid) = process.parse()
            && inode(format!("/proc/{process}/ns/net")).is_some_and(|own| inodes.contains(&own))
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn delete_links(id: u8) {
    if !names_in("/sys/class/net", &link_prefix(id)).is_empty() {
        // Those that are half-made go with their namespaces.
        let _ = ip(&format!("link del group {}\n", link_group(id)));
    }
}

fn names_in(directory: &str, prefix: &str) -> Vec<String> {
    // No directory: nothing was ever made.
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn ip(commands: &str) -> Result<(), NetworkError> {
    ip_in(None, commands)
}

/// Runs `ip` once for many commands: an instance boots in milliseconds only if few programs are started.
fn ip_in(namespace: Option<&str>, commands: &str) -> Result<(), NetworkError> {
    let mut ip = match namespace {
        None => Command::new("ip"),
        Some(namespace) => {
            // Not `ip -n`, which also changes mounts, and cannot in a chroot.
            let mut nsenter = Command::new("nsenter");
            nsenter
                .arg(format!("--net={NAMESPACES}/{namespace}"))
                .args(["--", "ip"]);
            nsenter
        }
    };
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetworkError::Ip {
        commands: commands.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
