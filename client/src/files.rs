//! Durable files: written beside, synced, renamed into place, readable by SlurmUser only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files name users and accounts, and the spool decides what is launched.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A file operation that failed, with the path that it failed on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}", path = path.display())]
pub struct FileError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Names the operation and the path.
    pub fn on(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path,
            source,
        }
    }

    /// Whether the file is there and is no text.
    pub fn is_not_text(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidData
    }

    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Makes a directory and those above it, 0700; one that is there stays as it is.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(FileError::on("make directory", path))
}

/// Opens a file for reading and writing, made 0600 if it is not there.
pub fn open_or_make(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(FileError::on("open", path))
}

/// Reads a text file.
pub fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::on("read", path))
}

/// Tells one state of a file from another: a file that was replaced or written to has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// The present state of a file; none if it cannot be looked at.
pub fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some(Identity {
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}

/// Whether a written file must outlast a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Synced, and so is its directory.
    Durably,
    /// Whole or not at all, but it may be lost: it can be made again.
    WhileItLasts,
}

/// Replaces a file as a whole: a reader sees the old content or the new, never a part.
pub fn replace(path: &Path, content: &[u8], keep: Keep) -> Result<(), FileError> {
    replace_with(path, keep, |file| file.write_all(content))
}

/// The same, with the content as it is made.
pub fn replace_with(
    path: &Path,
    keep: Keep,
    content: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        let mut buffer = BufWriter::new(&file);
        content(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        if keep == Keep::Durably {
            file.sync_all()?;
        }
        Ok(())
    };
    write().map_err(FileError::on("write", &temporary))?;
    rename(&temporary, path, keep)
}

/// Renames within a directory.
pub fn rename(from: &Path, to: &Path, keep: Keep) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::on("rename", from))?;
    match (keep, to.parent()) {
        (Keep::Durably, Some(directory)) => File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(FileError::on("sync", directory)),
        _ => Ok(()),
    }
}
