//! Other releases of Slurm: root file systems of the Debian releases that package them, made once and kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::{COMPLETE, InstallError, cache_directory, install_packages, missing_packages, run};

/// What a head node and an instance are made of: Slurm, what `spillway node join` needs, what tests need.
const PACKAGES: &str = "slurm-wlm,munge,ca-certificates,nftables,iproute2,procps,curl";
/// Where Debian is fetched from.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Which Slurm a lab runs, by the Debian release that packages it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlurmRelease {
    /// What is installed here: 22.05 on Debian 12.
    #[default]
    Installed,
    /// Debian 13's, 24.11.
    Debian13,
    /// Debian unstable's, 26.05 or later.
    DebianSid,
}

impl SlurmRelease {
    fn suite(self) -> Option<&'static str> {
        match self {
            Self::Installed => None,
            Self::Debian13 => Some("trixie"),
            Self::DebianSid => Some("sid"),
        }
    }
}

/// The root file system with this release of Slurm, none for this machine's own. The first call on a machine makes it
/// (a minute and 300 MB), telling `progress`.
pub fn ensure_slurm(
    release: SlurmRelease,
    progress: impl Fn(&str),
) -> Result<Option<PathBuf>, InstallError> {
    let Some(suite) = release.suite() else {
        return Ok(None);
    };
    let directory = cache_directory()?.join("slurm");
    ensure_suite(suite, &directory, &progress).map(Some)
}

fn ensure_suite(
    suite: &str,
    directory: &Path,
    progress: &impl Fn(&str),
) -> Result<PathBuf, InstallError> {
    let root = directory.join(suite);
    if root.join(COMPLETE).exists() {
        return Ok(root);
    }
    let failed = |source| InstallError::Cache {
        path: directory.to_owned(),
        source,
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = File::create(directory.join(format!("{suite}.lock"))).map_err(failed)?;
    // Held until the end of this function. A second lab waits here and finds the work done.
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
    if root.join(COMPLETE).exists() {
        return Ok(root);
    }
    let fresh = directory.join(format!("{suite}.new"));
    for left in [&root, &fresh] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(failed)?;
        }
    }
    install_packages(&missing_packages(&["debootstrap"])?, progress)?;
    progress(&format!(
        "installing Slurm of Debian {suite} (a minute or two, once)"
    ));
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include", PACKAGES, suite])
        .arg(&fresh)
        .arg(MIRROR))?;
    fs::write(fresh.join(COMPLETE), "").map_err(failed)?;
    fs::rename(&fresh, &root).map_err(failed)?;
    Ok(root)
}
