//! `lab`: what `make up`, `make down`, `make demo` and the checks run.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use spillway_lab::{demo, install, standing};

const USAGE: &str = "usage: lab install | up [DIRECTORY] | down [DIRECTORY] | demo [DIRECTORY]
  install  install what a lab needs; the last line is the directory of the Python tools
  up       start a lab and leave it running; then: source DIRECTORY/env [default: target/lab]
  down     stop it
  demo     start a lab, run jobs on burst nodes, show what happens, stop it [default: target/demo]";

/// Where labs keep what a person looks at: below the checkout.
fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let state = target().join("lab");
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["install"] => {
            let venv = install::ensure_installed(|line| eprintln!("{line}"))?;
            println!("{}", venv.join("bin").display());
            Ok(())
        }
        ["up"] => standing::up(&state),
        ["up", state] => standing::up(Path::new(state)),
        ["down"] => standing::down(&state),
        ["down", state] => standing::down(Path::new(state)),
        // Started by `up`, detached from its terminal.
        ["serve", state] => runtime()?.block_on(standing::serve(Path::new(state))),
        ["demo"] => runtime()?.block_on(demo::run(&target().join("demo"))),
        ["demo", state] => runtime()?.block_on(demo::run(Path::new(state))),
        _ => bail!("{USAGE}"),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start tokio")
}
