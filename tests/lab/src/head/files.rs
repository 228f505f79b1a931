//! The head node's user and files: directories, the installed client, the munge key.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::unistd::User;

use super::{HeadError, SLURM_USER, at};

/// The names by which Slurm calls the client: before 26.05 a program gets no arguments of ours.
const PROGRAMS: [&str; 3] = [
    "spillway-resume",
    "spillway-suspend",
    "spillway-resume-fail",
];
/// The size of key that `mungekey` makes, in bytes.
const MUNGE_KEY_BYTES: usize = 128;

pub(super) fn slurm_user() -> Result<User, HeadError> {
    let user = User::from_name(SLURM_USER)
        .map_err(io::Error::from)
        .map_err(at("look up the slurm user"))?;
    user.ok_or(HeadError::NoSlurmUser)
}

pub(super) fn make_directories(directory: &Path, user: &User) -> io::Result<()> {
    for part in ["bin", "etc", "log", "munge", "run", "state"] {
        let path = directory.join(part);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        if !["bin", "etc"].contains(&part) {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// Slurm says only "not executable" when it cannot enter a directory above its program.
pub(super) fn check_reachable(directory: &Path, user: &User) -> Result<(), HeadError> {
    for parent in directory.ancestors() {
        let status = fs::metadata(parent).map_err(at("look at the head node's directory"))?;
        let needed = if status.uid() == user.uid.as_raw() {
            0o100
        } else if status.gid() == user.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        if status.mode() & needed == 0 {
            return Err(HeadError::Closed(parent.to_owned()));
        }
    }
    Ok(())
}

/// A copy with fixed permissions: Slurm disables power saving, silently, if a program is group-writable.
pub(super) fn install_client(client: &Path, directory: &Path) -> io::Result<()> {
    let installed = directory.join("bin/spillway");
    // Not written over: an agent of before may still run it.
    let fresh = directory.join("bin/.spillway");
    fs::copy(client, &fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
    fs::rename(&fresh, &installed)?;
    for program in PROGRAMS {
        match symlink("spillway", directory.join("bin").join(program)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn make_munge_key() -> io::Result<Vec<u8>> {
    let mut key = vec![0; MUNGE_KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

pub(super) fn write_munge_key(directory: &Path, user: &User, key: &[u8]) -> io::Result<()> {
    let path = directory.join("munge/munge.key");
    fs::write(&path, key)?;
    fs::set_permissions(&path, Permissions::from_mode(0o400))?;
    chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}
