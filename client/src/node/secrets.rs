//! The keys that slurmd joins with, from SSM to the place where munged or Slurm looks for them: readable by their
//! owner alone, on this machine's own disk, and in no log.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::statfs;
use nix::unistd::{Gid, Uid, User, fchown};
use spillway_core::name::ClusterName;
use tokio::process::Command;
use tracing::info;

use super::command;
use super::slurm::Slurm;
use crate::aws::ssm::{Decrypt, ParameterError, Parameters};
use crate::files::FileError;
use crate::secret::{JoinSecret, KeyBytes, SecretError};

/// Where munged reads its key unless told otherwise.
const MUNGE_KEY: &str = "/etc/munge/munge.key";
const MUNGE_USER: &str = "munge";
/// The unit of munged in Debian and in the RPMs.
const MUNGE_UNIT: &str = "munge";
/// munged collects randomness before it serves.
const RESTART_TIMEOUT: Duration = Duration::from_mins(1);

/// Both munged and slurmd refuse a key that others may read.
const KEY_MODE: u32 = 0o400;
const KEY_DIRECTORY_MODE: u32 = 0o700;

/// File systems that other machines see as well (`f_type` of statfs(2); the last four from their projects' headers).
const NETWORK_FILE_SYSTEMS: [(u32, &str); 15] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x00C3_6400, "ceph"),
    (0x5346_414F, "afs"),
    (0x0102_1997, "9p"),
    (0x7461_636F, "ocfs2"),
    (0x0116_1970, "gfs2"),
    (0x7375_7245, "coda"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x2003_0528, "orangefs"),
];

/// Why the node has no key. Never holds any part of one.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// SSM did not give it.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The parameter holds no key.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Nobody to own it.
    #[error("there is no user {user} on the instance to own {path}", path = path.display())]
    NoUser {
        /// The user.
        user: String,
        /// The key's file.
        path: PathBuf,
    },
    /// Other machines would see it.
    #[error("{directory} is on a network file system ({kind}): a key must not lie there", directory = directory.display())]
    Shared {
        /// Where the key was to go.
        directory: PathBuf,
        /// Such as `nfs`.
        kind: &'static str,
    },
    /// It could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// munged runs with another key.
    #[error("munged does not start with the cluster's key: {0}")]
    Restart(String),
    /// There is none.
    #[error("there is no munge key: neither parameter {0} nor one in the image")]
    None(String),
}

impl SecretsError {
    /// Whether asking SSM again may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Parameter(error) if !error.is_denied())
    }
}

/// Puts the keys that the operator stored where they belong. Without any, the image must bring its own.
pub async fn install(
    parameters: &Parameters,
    cluster: &ClusterName,
    slurm: &Slurm,
) -> Result<(), SecretsError> {
    for secret in JoinSecret::ALL {
        let name = secret.parameter(cluster);
        let Some(value) = parameters.get(&name, Decrypt::Yes).await? else {
            continue;
        };
        let key = secret.read_parameter(cluster, &value)?;
        let place = Place::of(secret, slurm)?;
        let changed = place.install(&key)?;
        let path = place.path.display();
        info!("{path} is that of parameter {name}, changed: {changed}");
        // Also where the key was there: a try that was cut off may have written it and not come to this.
        if secret == JoinSecret::MungeKey {
            restart_munged().await?;
        }
    }
    if !Path::new(MUNGE_KEY).exists() && !slurm_key(slurm).exists() {
        return Err(SecretsError::None(JoinSecret::MungeKey.parameter(cluster)));
    }
    Ok(())
}

/// Whether this machine has no key but that of auth/slurm.
pub fn munge_is_not_used(slurm: &Slurm) -> bool {
    slurm_key(slurm).exists() && !Path::new(MUNGE_KEY).exists()
}

/// slurmd looks beside its configuration.
fn slurm_key(slurm: &Slurm) -> PathBuf {
    slurm.conf().with_file_name("slurm.key")
}

async fn restart_munged() -> Result<(), SecretsError> {
    let mut restart = Command::new("systemctl");
    restart.args(["restart", MUNGE_UNIT]);
    command::run(restart, b"", RESTART_TIMEOUT)
        .await
        .map(drop)
        .map_err(|error| SecretsError::Restart(error.words()))
}

/// Where a key goes and whose it is.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    uid: Uid,
    gid: Gid,
}

impl Place {
    fn of(secret: JoinSecret, slurm: &Slurm) -> Result<Self, SecretsError> {
        let (path, user) = match secret {
            JoinSecret::MungeKey => (PathBuf::from(MUNGE_KEY), MUNGE_USER.to_owned()),
            JoinSecret::SlurmKey => (slurm_key(slurm), slurm.slurm_user()),
        };
        match User::from_name(&user) {
            Ok(Some(found)) => Ok(Self {
                path,
                uid: found.uid,
                gid: found.gid,
            }),
            _ => Err(SecretsError::NoUser { user, path }),
        }
    }

    /// Writes the key unless it is there as it should be; whether it was written.
    fn install(&self, key: &KeyBytes) -> Result<bool, SecretsError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        self.make_directory(directory)
            .map_err(FileError::on("make directory", directory))?;
        let kind = statfs(directory)
            .map_err(io::Error::from)
            .map_err(FileError::on("look at the file system of", directory))?
            .filesystem_type();
        // The kernel's `f_type` is a signed word, and these numbers are unsigned ones of 32 bits.
        if let Some(kind) = network_file_system(kind.0 as i64) {
            return Err(SecretsError::Shared {
                directory: directory.to_owned(),
                kind,
            });
        }
        if self.has(key) {
            return Ok(false);
        }
        self.write(key)
            .map_err(FileError::on("write", &self.path))?;
        Ok(true)
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.exists() {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(KEY_DIRECTORY_MODE)
            .create(directory)?;
        std::os::unix::fs::chown(directory, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    fn has(&self, key: &KeyBytes) -> bool {
        let is_as_it_should_be = fs::symlink_metadata(&self.path).is_ok_and(|file| {
            file.is_file() && file.uid() == self.uid.as_raw() && file.mode() & 0o7777 == KEY_MODE
        });
        is_as_it_should_be && fs::read(&self.path).is_ok_and(|old| old == key.as_bytes())
    }

    /// Under another name first, which is nobody else's to read at any moment.
    fn write(&self, key: &KeyBytes) -> io::Result<()> {
        let draft = self.path.with_extension("key.new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(KEY_MODE)
            .open(&draft)?;
        fchown(&file, Some(self.uid), Some(self.gid))?;
        file.write_all(key.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)
    }
}

/// The name of a file system that other machines see as well.
fn network_file_system(f_type: i64) -> Option<&'static str> {
    NETWORK_FILE_SYSTEMS
        .iter()
        .find(|(magic, _)| f_type & 0xFFFF_FFFF == i64::from(*magic))
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nix::unistd::{getgid, getuid};

    use super::*;

    fn place(directory: &Path) -> Place {
        Place {
            path: directory.join("keys/munge.key"),
            uid: getuid(),
            gid: getgid(),
        }
    }

    fn key(byte: u8) -> KeyBytes {
        JoinSecret::MungeKey.key(vec![byte; 128]).unwrap()
    }

    #[test]
    fn a_key_is_its_owners_alone_and_written_only_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        assert!(place.install(&key(1)).unwrap());
        assert!(!place.install(&key(1)).unwrap(), "it is there");
        let file = fs::metadata(&place.path).unwrap();
        assert_eq!(file.mode() & 0o7777, KEY_MODE);
        assert!(place.install(&key(2)).unwrap());
        assert_eq!(fs::read(&place.path).unwrap(), key(2).as_bytes());
        // One that others may read is not as it should be.
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(place.install(&key(2)).unwrap());
        assert_eq!(fs::metadata(&place.path).unwrap().mode() & 0o7777, KEY_MODE);
        let left: Vec<_> = fs::read_dir(place.path.parent().unwrap())
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_link_in_the_keys_place_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        fs::create_dir(place.path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &place.path).unwrap();
        assert!(place.install(&key(1)).unwrap());
        assert_eq!(fs::read(&elsewhere).unwrap(), b"");
        assert!(fs::symlink_metadata(&place.path).unwrap().is_file());
    }

    #[test]
    fn network_file_systems_are_known_in_either_sign() {
        use nix::sys::statfs;
        assert_eq!(network_file_system(statfs::NFS_SUPER_MAGIC.0), Some("nfs"));
        assert_eq!(network_file_system(0xFF53_4D42), Some("cifs"));
        assert_eq!(
            network_file_system(i64::from(0xFF53_4D42_u32.cast_signed())),
            Some("cifs")
        );
        for local in [statfs::TMPFS_MAGIC, statfs::EXT4_SUPER_MAGIC] {
            assert_eq!(network_file_system(local.0), None);
        }
    }
}
