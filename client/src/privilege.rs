//! Becoming another user for good: `spillway apply` is started by root and reads what comes from outside as
//! SlurmUser.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User};
use nix::unistd::{getegid, geteuid, getgid, getresuid, getuid, initgroups};
use nix::unistd::{setegid, seteuid, setresgid, setresuid};

/// Why we are not that user.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Not in the password database.
    #[error("SlurmUser is {0}, and there is no such user here")]
    NoSuchUser(String),
    /// Only root may become another.
    #[error("this runs as user {own}: run it as root, or as SlurmUser ({user})")]
    NotRoot {
        /// The effective uid.
        own: Uid,
        /// SlurmUser.
        user: String,
    },
    /// The kernel refused.
    #[error("cannot become {user}: {operation}: {source}")]
    Refused {
        /// SlurmUser.
        user: String,
        /// Which step.
        operation: &'static str,
        /// Its error.
        source: Errno,
    },
    /// It did not refuse, and yet root is not given up.
    #[error("cannot become {0}: root could be had back")]
    NotForGood(String),
}

/// Becomes a user with that user's groups, and makes sure that there is no way back. Nothing is to be done if
/// we are that user. The process has one thread yet.
pub fn become_user(name: &str) -> Result<(), PrivilegeError> {
    let refused = |operation| {
        let user = name.to_owned();
        move |source| PrivilegeError::Refused {
            user,
            operation,
            source,
        }
    };
    let user = User::from_name(name)
        .map_err(refused("look it up"))?
        .ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))?;
    if geteuid() == user.uid && getuid() == user.uid {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(PrivilegeError::NotRoot {
            own: geteuid(),
            user: name.to_owned(),
        });
    }
    let c_name = CString::new(name).map_err(|_| PrivilegeError::NoSuchUser(name.to_owned()))?;
    // In this order: without root the groups could not be changed any more.
    initgroups(&c_name, user.gid).map_err(refused("initgroups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(refused("setresgid"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(refused("setresuid"))?;
    if is_for_good(&user) {
        Ok(())
    } else {
        Err(PrivilegeError::NotForGood(name.to_owned()))
    }
}

fn is_for_good(user: &User) -> bool {
    let is_all_user = getresuid().is_ok_and(|uids| {
        [uids.real, uids.effective, uids.saved]
            .iter()
            .all(|uid| *uid == user.uid)
    });
    let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
    let is_group = getgid() == user.gid && getegid() == user.gid;
    let is_root_gone =
        user.uid.is_root() || (seteuid(root).is_err() && setresuid(root, root, root).is_err());
    let is_root_group_gone = user.uid.is_root() || user.gid == wheel || setegid(wheel).is_err();
    is_all_user && is_group && is_root_gone && is_root_group_gone
}
