//! The emulator behind the proxy: what everything else in the lab takes for AWS.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    emulator::{Emulator, EmulatorError, EmulatorSettings, ROOT_KEY, free_port},
    journal::Journal,
    proxy::{Proxy, ProxyError, ProxySettings},
    tls::{Certificates, TlsError},
};

/// Why there is no cloud.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A file of it could not be made.
    #[error("make {path} writable")]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// No emulator.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
}

/// A running emulator behind its proxy.
#[derive(Debug)]
pub struct Cloud {
    /// The one endpoint for everyone.
    pub proxy: Proxy,
    /// What is behind it, for the lab itself.
    pub emulator: Emulator,
    /// What everyone must trust.
    pub certificates: Certificates,
}

impl Cloud {
    /// Starts both. The proxy listens on `host` (127.0.0.1, or a bridge's address) and `port` (0: any);
    /// the emulator on the same port of a loopback address next to it (10.65.0.1 → 127.65.0.2), for it
    /// writes its own port into queue URLs, which are to lead to the proxy.
    ///
    /// `state` is made if absent and gets the certificates, `journal.jsonl` and `emulator/ministack.log`;
    /// `venv` is what [`crate::install::ensure_installed`] gave.
    pub async fn start(
        venv: &Path,
        state: &Path,
        host: Ipv4Addr,
        port: u16,
    ) -> Result<Self, CloudError> {
        let [_, b, c, d] = host.octets();
        let behind = IpAddr::from([127, b, c, d.wrapping_add(1)]);
        let host = IpAddr::from(host);
        let port = match port {
            0 => free_port(&[host, behind])?,
            chosen => chosen,
        };
        fs::create_dir_all(state).map_err(file(state))?;
        let certificates = Certificates::create(state, &[host, behind])?;
        let journal = state.join("journal.jsonl");
        let proxy = Proxy::start(ProxySettings {
            listen: SocketAddr::from((host, port)),
            emulator: SocketAddr::from((behind, port)),
            certificates: &certificates,
            journal: Journal::open(&journal).map_err(file(&journal))?,
        })
        .await?;
        proxy.principals().register(ROOT_KEY, "operator");
        let emulator = Emulator::start(EmulatorSettings {
            venv,
            state: &state.join("emulator"),
            certificates: &certificates,
            address: SocketAddr::from((behind, port)),
            proxy: proxy.address(),
        })
        .await?;
        Ok(Self {
            proxy,
            emulator,
            certificates,
        })
    }

    /// Stops the emulator with its Lambdas, then the proxy.
    pub async fn stop(self) {
        self.emulator.stop().await;
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> CloudError {
    let path = path.to_owned();
    move |source| CloudError::File { path, source }
}
