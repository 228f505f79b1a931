//! Reads the repository as its own checks see it: which crate imports which ([`crates`]), and what the
//! CloudFormation template says ([`template`]). The checks themselves are in `tests/`.

pub mod crates;
pub mod template;

use std::path::PathBuf;

/// Root of the checkout that this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
