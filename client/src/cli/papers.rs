//! Manual pages and shell completions, made from the command line's own definition when packages are built.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, EXIT_OK};

/// One page for the program and one a command.
pub fn man(directory: &Path) -> anyhow::Result<u8> {
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
    Ok(EXIT_OK)
}

/// A script on standard output for the shell to source.
pub fn completion(shell: Shell) -> u8 {
    clap_complete::generate(shell, &mut Cli::command(), "spillway", &mut io::stdout());
    EXIT_OK
}
