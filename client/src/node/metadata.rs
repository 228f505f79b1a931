//! Instance metadata, closed to everybody but root: it hands the credentials of the instance's role to whoever asks,
//! and jobs run on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::unistd::User;
use tokio::process::Command;

use super::check::{Outcome, Patience, failed, passed};
use super::command::{self, CommandError};

/// Where EC2 serves it (EC2 User Guide, "Access instance metadata").
const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
const HTTP: u16 = 80;

/// The service is on the same machine, and what is refused is refused at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Both addresses one after the other, and the start of a process on a machine that is still booting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Loading four rules takes milliseconds, the kernel's module before that may take longer.
const NFT_TIMEOUT: Duration = Duration::from_secs(20);

/// The user without rights that every system has.
const NOBODY: &str = "nobody";

/// The whole table in one transaction, instead of one that is there: it is closed all the time.
///
/// `skuid` is the owner of the socket that sends. A packet of no process's socket has none, and neither comparison
/// holds for it: the kernel's own last words of a connection pass, but nothing that could open one does, for some
/// families (`AF_SMC`) connect for a user by a socket of the kernel's. `forward` is for containers with a network of
/// their own.
const RULES: &str = "\
table inet spillway
delete table inet spillway
table inet spillway {
  chain output {
    type filter hook output priority filter; policy accept;
    ip daddr 169.254.169.254 goto metadata
    ip6 daddr fd00:ec2::254 goto metadata
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip daddr 169.254.169.254 reject
    ip6 daddr fd00:ec2::254 reject
  }
  chain metadata {
    meta skuid 0 accept
    meta l4proto tcp meta skuid != 0 reject with tcp reset
    meta skuid != 0 reject
    tcp flags & (syn | ack) == syn reject with tcp reset
    meta l4proto != tcp reject
  }
}
";

/// Closes it. Whether that has worked is [`check`]'s to say.
pub async fn close() -> Result<(), CommandError> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]);
    command::run(nft, RULES.as_bytes(), NFT_TIMEOUT)
        .await
        .map(drop)
}

/// Connects as `nobody`, which must fail, and as root, which must not.
pub async fn check() -> Outcome {
    let not_known = |why: String| {
        let reason = format!("cannot tell whether instance metadata is closed to jobs: {why}");
        failed(reason, Patience::None)
    };
    match probe_as(NOBODY).await {
        Ok(reached) if reached.is_empty() => {}
        Ok(reached) => {
            let reason = format!("instance metadata is open to jobs: {NOBODY} reaches {reached}");
            return failed(reason, Patience::None);
        }
        Err(why) => return not_known(why),
    }
    match tokio::task::spawn_blocking(reached).await {
        Ok(reached) if reached.contains(&ADDRESSES[0]) => {
            passed("closed to every user but root".to_owned())
        }
        Ok(_) => failed(
            "instance metadata is closed to root as well".to_owned(),
            Patience::Settle,
        ),
        Err(error) => not_known(error.to_string()),
    }
}

/// Runs this program's own `node reach-metadata` as another user: what it reaches, in words.
async fn probe_as(name: &str) -> Result<String, String> {
    let user = User::from_name(name).map_err(|error| error.to_string())?;
    let user = user.ok_or_else(|| format!("there is no user {name}"))?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut probe = Command::new(program);
    // Setting the user of a child of root's takes root's groups from it, too.
    probe
        .args(["node", "reach-metadata"])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/");
    let printed = command::run(probe, b"", PROBE_TIMEOUT)
        .await
        .map_err(|error| error.words())?;
    let reached: Vec<&str> = printed.lines().collect();
    Ok(reached.join(" and "))
}

/// The addresses that take a connection from this process.
#[must_use]
pub fn reached() -> Vec<IpAddr> {
    let takes = |address: &IpAddr| {
        TcpStream::connect_timeout(&SocketAddr::new(*address, HTTP), CONNECT_TIMEOUT).is_ok()
    };
    ADDRESSES.into_iter().filter(takes).collect()
}
