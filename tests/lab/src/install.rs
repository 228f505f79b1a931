//! Installs what the lab runs and the machine lacks: Debian packages, a pinned Python environment, other releases of
//! Slurm.
//!
//! The Python environment's directory is named by a hash of the pins, so that a change of pins makes another
//! one and checkouts with different pins do not disturb each other.

mod slurm;

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

pub use slurm::{SlurmRelease, ensure_slurm};

const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// The Debian packages whose programs the lab runs or (the last two, for `curl` and `pkill`) its tests.
const PACKAGES: [&str; 7] = [
    "slurm-wlm",
    "slurm-client",
    "munge",
    "iproute2",
    "nftables",
    "curl",
    "procps",
];

/// Written last, so that a thing whose making was broken off is made again.
const COMPLETE: &str = "complete";

/// Lines of a failed program's output that go into the error.
const TAIL_LINES: usize = 15;

/// Why something is still missing.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Packages are missing and we may not install them.
    #[error("install them as root: apt-get install {}", .0.join(" "))]
    NotRoot(Vec<String>),
    /// A program could not be run.
    #[error("install {program}, which the lab needs")]
    NoProgram {
        /// Its name.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("see why `{command}` failed; it ended with\n{tail}")]
    Failed {
        /// The command line.
        command: String,
        /// The last lines of its output.
        tail: String,
    },
    /// The cache directory cannot be used.
    #[error("make {path} writable, or name another directory in SPILLWAY_CACHE")]
    Cache {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("make {path} writable")]
    Write {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no place for the cache.
    #[error("set HOME or SPILLWAY_CACHE")]
    NoHome,
}

/// Installs what is missing, telling `progress` what takes long; gives the Python environment's directory
/// (`bin/python`, `bin/sam`, `bin/aws`, `bin/cfn-lint`). Where nothing is missing this costs some 20 ms.
pub fn ensure_installed(progress: impl Fn(&str)) -> Result<PathBuf, InstallError> {
    install_packages(&missing_packages(&PACKAGES)?, &progress)?;
    ensure_python(&cache_directory()?, &progress)
}

/// Writes an `aws` command into `directory`, for a person's PATH: the AWS CLI of the environment `venv`,
/// told its endpoint by option. The CLI (v1) does not read `AWS_ENDPOINT_URL` for `aws sqs`, for which it
/// has an address of its own in mind.
pub fn write_aws_command(venv: &Path, directory: &Path) -> Result<(), InstallError> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join("aws");
    let program = venv.join("bin/aws");
    let script = format!(
        "#!/bin/sh\nexec '{}' --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"\n",
        program.display()
    );
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|source| InstallError::Write { path, source })
}

/// `SPILLWAY_CACHE`, else `~/.cache/spillway`: what outlives checkouts and clean-ups.
pub fn cache_directory() -> Result<PathBuf, InstallError> {
    if let Some(named) = env::var_os("SPILLWAY_CACHE") {
        return Ok(named.into());
    }
    let home = env::var_os("HOME").ok_or(InstallError::NoHome)?;
    Ok(Path::new(&home).join(".cache/spillway"))
}

fn missing_packages(wanted: &[&str]) -> Result<Vec<String>, InstallError> {
    // Exits with 1 when it does not know one of the packages; what it prints about the others stands.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .map_err(no_program("dpkg-query"))?;
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(wanted
        .iter()
        .filter(|package| {
            !listed
                .lines()
                .any(|line| line == format!("{package} installed"))
        })
        .map(|package| (*package).to_owned())
        .collect())
}

fn install_packages(missing: &[String], progress: &impl Fn(&str)) -> Result<(), InstallError> {
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(InstallError::NotRoot(missing.to_vec()));
    }
    progress(&format!(
        "installing Debian packages: {}",
        missing.join(" ")
    ));
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Two labs may start at once; apt's own lock then needs some patience.
            .args(["-o", "DPkg::Lock::Timeout=600"]);
        command
    };
    run(apt().arg("update"))?;
    run(apt()
        .args(["install", "-y", "--no-install-recommends"])
        .args(missing))
}

fn ensure_python(cache: &Path, progress: &impl Fn(&str)) -> Result<PathBuf, InstallError> {
    let digest = Sha256::digest(REQUIREMENTS);
    let hash = digest[..6]
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let venv = cache.join(format!("venv-{hash}"));
    if is_complete(&venv) {
        return Ok(venv);
    }
    let failed = |source| InstallError::Cache {
        path: cache.to_owned(),
        source,
    };
    fs::create_dir_all(cache).map_err(failed)?;
    let lock = File::create(cache.join(format!("venv-{hash}.lock"))).map_err(failed)?;
    // Held until the end of this function. A second lab waits here and finds the work done.
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
    if is_complete(&venv) {
        return Ok(venv);
    }
    if venv.exists() {
        fs::remove_dir_all(&venv).map_err(failed)?;
    }
    ensure_python_can_make_environments(progress)?;
    progress("installing the emulator and the AWS tools for Python (a minute or two, once)");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let requirements = venv.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(failed)?;
    run(Command::new(venv.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(&requirements))?;
    fs::write(venv.join(COMPLETE), "").map_err(failed)?;
    Ok(venv)
}

fn is_complete(venv: &Path) -> bool {
    // The interpreter is a link out of the environment, which breaks when that Python is removed.
    venv.join(COMPLETE).exists() && venv.join("bin/python").exists()
}

/// Debian's own Python comes without `venv`; others bring it.
fn ensure_python_can_make_environments(progress: &impl Fn(&str)) -> Result<(), InstallError> {
    let can = Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stderr(Stdio::null())
        .status()
        .map_err(no_program("python3"))?;
    if can.success() {
        return Ok(());
    }
    install_packages(&["python3-venv".to_owned()], progress)
}

fn run(command: &mut Command) -> Result<(), InstallError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(no_program(&program))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Err(InstallError::Failed {
        command: format!("{command:?}"),
        tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
    })
}

fn no_program(program: &str) -> impl FnOnce(io::Error) -> InstallError {
    let program = program.to_owned();
    move |source| InstallError::NoProgram { program, source }
}
