//! MiniStack, the emulator of everything but EC2: started in an environment of the lab's making, with
//! identities and policies enforced, on https, and stopped with all the Lambdas it runs.

pub mod root;

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    proxy::upstream::HttpClient,
    tls::{Certificates, TlsError},
};

/// MiniStack imports some 200 modules: 2 s alone on an idle machine, many times that while others build.
const START_SECONDS: u64 = 90;
/// How long it may take to end on SIGTERM; it holds nothing that would be lost by SIGKILL.
const STOP_SECONDS: u64 = 3;
/// Tries to find a port that is free on every address asked for.
const PORT_TRIES: usize = 50;

/// The region of the lab.
pub const REGION: &str = "us-east-1";
/// The account of the lab, which is MiniStack's for the key `test`.
pub const ACCOUNT: &str = "000000000000";
/// MiniStack's root key, whose secret it does not check. For the lab itself and for the operator only:
/// whatever else used it would prove nothing.
pub const ROOT_KEY: &str = "test";

const START_SCRIPT: &str = include_str!("emulator/start.py");

/// Why there is no emulator.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// No port is free on all the addresses.
    #[error("free some ports: none of {PORT_TRIES} was free on each of {0:?}")]
    NoPort(Vec<IpAddr>),
    /// A file or process could not be made.
    #[error("start MiniStack: {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended, or did not answer in time.
    #[error("see {log}: MiniStack {how}; it ends with\n{tail}")]
    NotServing {
        /// `ended` or `did not answer within …`.
        how: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The certificates could not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the emulator needs to know.
#[derive(Debug)]
pub struct EmulatorSettings<'a> {
    /// The Python environment that holds it (`install::ensure_installed` gives it).
    pub venv: &'a Path,
    /// Its directory, made if absent: log, temporary files, Lambdas' code.
    pub state: &'a Path,
    /// The lab's certificates; they must name `address`'s IP.
    pub certificates: &'a Certificates,
    /// Where it serves. MiniStack writes its own port into queue URLs, so for these to lead to the proxy
    /// this is the proxy's port on another address (see [`free_port`]).
    pub address: SocketAddr,
    /// The proxy, which Lambdas call and queue URLs name.
    pub proxy: SocketAddr,
}

/// A running MiniStack. Dropping it kills it and its Lambdas at once.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    group: Pid,
    address: SocketAddr,
    client: HttpClient,
    log: PathBuf,
}

/// A TCP port that is free on each of the addresses just now.
pub fn free_port(addresses: &[IpAddr]) -> Result<u16, EmulatorError> {
    let all_free = || -> io::Result<u16> {
        let (first, others) = addresses.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let held = TcpListener::bind((*first, 0))?;
        let port = held.local_addr()?.port();
        for other in others {
            TcpListener::bind((*other, port))?;
        }
        Ok(port)
    };
    (0..PORT_TRIES)
        .find_map(|_| all_free().ok())
        .ok_or_else(|| EmulatorError::NoPort(addresses.to_vec()))
}

impl Emulator {
    /// Starts MiniStack and waits until it serves.
    pub async fn start(settings: EmulatorSettings<'_>) -> Result<Self, EmulatorError> {
        let log = settings.state.join("ministack.log");
        let child = spawn(&settings, &log)?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw)
            .ok_or_else(|| system("its process id")(io::ErrorKind::NotFound.into()))?;
        let mut emulator = Self {
            child,
            group,
            address: settings.address,
            client: HttpClient::new(settings.certificates)?,
            log,
        };
        emulator.wait_until_serving().await?;
        Ok(emulator)
    }

    /// Where it serves https.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A client with all rights, past the proxy and so past the journal.
    #[must_use]
    pub fn root(&self) -> root::RootClient {
        root::RootClient::new(self.client.clone(), self.address)
    }

    /// Stops it and all Lambdas it runs.
    pub async fn stop(mut self) {
        // Kept open, for `wait` closes it, and that would be the end of SIGTERM's patience.
        let _input = self.child.stdin.take();
        self.signal(Signal::SIGTERM);
        let _ = timeout(Duration::from_secs(STOP_SECONDS), self.child.wait()).await;
        // A Lambda that is busy outlives MiniStack's own clean-up: end the whole group in any case.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait().await;
    }

    async fn wait_until_serving(&mut self) -> Result<(), EmulatorError> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        loop {
            let health = Request::get(format!("https://{}/_ministack/ready", self.address))
                .body(Full::new(Bytes::new()))
                .expect("an address makes a URL");
            if let Ok(answer) = self.client.call(health).await
                && answer.status().is_success()
            {
                return Ok(());
            }
            let how = match self.child.try_wait() {
                Ok(Some(status)) => format!("ended ({status})"),
                _ if Instant::now() > deadline => {
                    format!("did not answer within {START_SECONDS} seconds")
                }
                _ => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            return Err(EmulatorError::NotServing {
                how,
                log: self.log.clone(),
                tail: last_lines(&self.log),
            });
        }
    }

    fn signal(&self, signal: Signal) {
        match killpg(self.group, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%error, "MiniStack could not be signalled"),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Its process, in a group of its own and with nothing of our environment: every Lambda inherits it.
fn spawn(settings: &EmulatorSettings<'_>, log: &Path) -> Result<Child, EmulatorError> {
    let temporary = settings.state.join("tmp");
    fs::create_dir_all(&temporary).map_err(system("make its directory"))?;
    let script = settings.state.join("start.py");
    fs::write(&script, START_SCRIPT).map_err(system("write its start script"))?;
    let output = File::create(log).map_err(system("make its log"))?;
    let errors = output.try_clone().map_err(system("make its log"))?;
    let certificates = settings.certificates;
    Command::new(settings.venv.join("bin/python"))
        .arg(&script)
        .current_dir(settings.state)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", settings.state)
        .env("TMPDIR", &temporary)
        .env("AUTH", "true")
        .env("USE_SSL", "1")
        .env("MINISTACK_SSL_CERT", &certificates.server)
        .env("MINISTACK_SSL_KEY", &certificates.server_key)
        .env("SSL_CERT_FILE", &certificates.bundle)
        .env("AWS_CA_BUNDLE", &certificates.bundle)
        .env("BIND_HOST", settings.address.ip().to_string())
        .env("GATEWAY_PORT", settings.address.port().to_string())
        .env("MINISTACK_HOST", settings.proxy.ip().to_string())
        .env("MINISTACK_REGION", REGION)
        .env("AWS_ENDPOINT_URL", format!("https://{}", settings.proxy))
        // Else every lab would fight for one fixed port on all addresses.
        .env("IOT_MTLS_ENABLED", "0")
        // Its end tells MiniStack of ours, even if we are killed.
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(system("run its Python"))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> EmulatorError {
    move |source| EmulatorError::System { what, source }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
