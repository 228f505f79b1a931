//! Root file systems that a few processes see and nobody else: an overlay over this machine's root, or over that of
//! another Debian. They go with their processes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

/// Directories that an overlay is made of, below one of its own.
pub(crate) const PARTS: [&str; 3] = ["upper", "work", "root"];

/// Makes [`PARTS`] in `directory`.
pub(crate) fn make_directories(directory: &Path) -> io::Result<()> {
    for part in PARTS {
        fs::create_dir_all(directory.join(part))?;
    }
    // The overlay's root shows the upper directory's own permissions, and every user must be able to enter `/`.
    fs::set_permissions(directory.join("upper"), Permissions::from_mode(0o755))
}

/// Gives the calling thread mounts of its own, among them, at the path that is returned, `lower` with what is written
/// to it kept in `directory`. Where that lies on an overlay (in a container), which cannot hold another's upper layer,
/// it is kept in memory.
pub(crate) fn mount_overlay(lower: &Path, directory: &Path) -> io::Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    make_mounts_private()?;
    // Copies of the machines' namespace mounts would keep those namespaces alive after their end. It is no mount where
    // `ip netns` was never used by this root, and then there is nothing to keep.
    let _ = umount2("/run/netns", MntFlags::MNT_DETACH);
    if statfs(directory)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC {
        mount_tmpfs(directory)?;
        make_directories(directory)?;
    }
    let root = directory.join("root");
    // `volatile`: else the end of every machine writes this machine's whole disk cache out.
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lower.display(),
        directory.join("upper").display(),
        directory.join("work").display()
    );
    let overlay = Some("overlay");
    mount(
        overlay,
        &root,
        overlay,
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    Ok(root)
}

/// Shows a directory of this machine, with what is mounted in it, at the same path below `root`.
pub(crate) fn bind(shared: &Path, root: &Path) -> io::Result<()> {
    let inside = root.join(shared.strip_prefix("/").unwrap_or(shared));
    fs::create_dir_all(&inside)?;
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(shared), &inside, none, flags, none)?)
}

/// Mounts an empty file system in memory.
pub(crate) fn mount_tmpfs(place: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    let tmpfs = Some("tmpfs");
    Ok(mount(tmpfs, place, tmpfs, MsFlags::empty(), none)?)
}

/// Makes `root` the calling thread's root and working directory.
pub(crate) fn enter(root: &Path) -> io::Result<()> {
    nix::unistd::chroot(root)?;
    Ok(nix::unistd::chdir("/")?)
}

/// Keeps the calling thread's later mounts from everybody else's sight.
fn make_mounts_private() -> io::Result<()> {
    // Propagation is a matter of mount points, and in a chroot `/` is none: it is changed at the namespace's own
    // root, where entering the namespace anew leads, and from where the thread then goes back.
    let here = File::open("/")?;
    setns(
        File::open("/proc/thread-self/ns/mnt")?,
        CloneFlags::CLONE_NEWNS,
    )?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    nix::unistd::fchdir(&here)?;
    nix::unistd::chroot(".")?;
    Ok(())
}
