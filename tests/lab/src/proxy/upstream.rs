//! Where calls go on to: one backend a service or operation, everything else to the emulator.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, Response, Uri, header,
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::tls::{Certificates, TlsError};

/// Shorter than the emulator keeps idle connections (75 s), so that none is used as it closes.
const IDLE_SECONDS: u64 = 20;

/// Why a call got no answer from its backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("see whether the backend runs")]
    Call(#[from] hyper_util::client::legacy::Error),
    #[error("see why the backend broke off its answer")]
    Answer(#[from] hyper::Error),
}

/// An HTTP/1.1 client with pooled connections that trusts the lab's authority.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub(crate) fn new(certificates: &Certificates) -> Result<Self, TlsError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(certificates.client_config()?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECONDS))
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and reads the answer whole.
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let (parts, body) = self.0.request(request).await?.into_parts();
        Ok(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    }
}

/// The backends by service, or by service and operation. Cheap to clone; all clones see the same routes.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    emulator: (Scheme, Authority),
    others: Arc<RwLock<HashMap<String, Authority>>>,
    operations: Arc<RwLock<HashMap<(String, String), Authority>>>,
}

impl Routes {
    pub(super) fn new(emulator: SocketAddr) -> Self {
        Self {
            emulator: (Scheme::HTTPS, authority(emulator)),
            others: Arc::default(),
            operations: Arc::default(),
        }
    }

    /// Sends a service's calls to a plain http server on loopback from now on.
    pub(super) fn set(&self, service: &str, address: SocketAddr) {
        self.others
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(service.to_owned(), authority(address));
    }

    /// The same for one operation of a service.
    pub(super) fn set_operation(&self, service: &str, operation: &str, address: SocketAddr) {
        self.operations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(
                (service.to_owned(), operation.to_owned()),
                authority(address),
            );
    }

    /// The address of a call's backend. Only the connection goes there: the Host header, which is
    /// signed, stays as the caller wrote it.
    pub(super) fn target(&self, service: &str, operation: &str, asked: &Uri) -> Uri {
        let operations = self
            .operations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let named = operations.get(&(service.to_owned(), operation.to_owned()));
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let (scheme, authority) = named.or_else(|| others.get(service)).map_or_else(
            || self.emulator.clone(),
            |other| (Scheme::HTTP, other.clone()),
        );
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
        parts.path_and_query = asked
            .path_and_query()
            .cloned()
            .or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
        Uri::from_parts(parts).expect("scheme, authority and path are all present")
    }
}

fn authority(address: SocketAddr) -> Authority {
    address
        .to_string()
        .parse()
        .expect("a socket address is an authority")
}

/// Headers that belong to one connection and are not passed on (RFC 9110, 7.6.1).
pub(crate) fn drop_connection_headers(headers: &mut http::HeaderMap) {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::EXPECT,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
