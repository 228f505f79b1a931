//! The recording proxy: the one endpoint that everything in the lab calls.
//!
//! It journals each call, carries out armed faults, and passes everything else on unchanged to the
//! backend of the service the call was signed for. Bodies are read whole; none is large.

mod answer;
mod authorized;
mod control;
mod principals;
mod request;
pub(crate) mod upstream;
mod writes;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_rustls::TlsAcceptor;

pub use self::principals::Principals;
use self::{
    answer::Answer,
    authorized::Authorized,
    request::{Described, describe},
    upstream::{HttpClient, Routes, drop_connection_headers},
};
use crate::{
    authorize::Authorizer,
    faults::{Action, Faults, Subject},
    journal::{Authorization, Call, Journal},
    tls::{Certificates, TlsError},
};

/// The largest request body taken. The largest that occurs is a part of a Lambda's zip on its way to
/// S3: zips are at most 250 MB unpacked.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const REQUEST_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// How long a client may take to send its headers, so that no forgotten connection stays for ever.
const HEADER_SECONDS: u64 = 120;

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address could not be listened on.
    #[error("free {address} for the proxy")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificates could not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a proxy needs to know.
#[derive(Debug)]
pub struct ProxySettings<'a> {
    /// Where to serve https, port 0 for any.
    pub listen: SocketAddr,
    /// Where the emulator serves (or will serve) https.
    pub emulator: SocketAddr,
    /// The lab's certificates; they must name the listening address.
    pub certificates: &'a Certificates,
    /// Where calls are recorded.
    pub journal: Journal,
}

/// A running proxy. Dropping it stops it and drops its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    control: SocketAddr,
    shared: Arc<Shared>,
    /// Aborts the listeners, and with them the connections, when dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    client: HttpClient,
    routes: Routes,
    faults: Faults,
    principals: Principals,
    journal: Journal,
    authorizer: RwLock<Option<Authorizer>>,
}

/// The caller gets no answer: its connection is dropped.
#[derive(Debug, thiserror::Error)]
#[error("no answer to this call, by a fault")]
struct Dropped;

impl Proxy {
    /// Starts to listen, for calls and (on any loopback port) for control.
    pub async fn start(settings: ProxySettings<'_>) -> Result<Self, ProxyError> {
        let (listener, address) = listen(settings.listen).await?;
        let (control_listener, control) =
            listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let acceptor = TlsAcceptor::from(Arc::new(settings.certificates.server_config()?));
        let shared = Arc::new(Shared {
            client: HttpClient::new(settings.certificates)?,
            routes: Routes::new(settings.emulator),
            faults: Faults::default(),
            principals: Principals::default(),
            journal: settings.journal,
            authorizer: RwLock::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, Arc::clone(&shared)));
        let router = control::router(shared.faults.clone());
        tasks.spawn(async move {
            if let Err(error) = axum::serve(control_listener, router).await {
                tracing::error!(%error, "the proxy's control port stopped");
            }
        });
        Ok(Self {
            address,
            control,
            shared,
            _tasks: tasks,
        })
    }

    /// The value of `AWS_ENDPOINT_URL` for everyone.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The control port's address, `http://127.0.0.1:PORT`; faults are at `/faults` below it.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// The faults it carries out.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What it recorded.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The names under which it records callers.
    #[must_use]
    pub fn principals(&self) -> &Principals {
        &self.shared.principals
    }

    /// From now on decides what is left to the proxy (`authorize::scope`), before a call goes on.
    pub fn authorize_by(&self, authorizer: Authorizer) {
        let held = self.shared.authorizer.write();
        *held.unwrap_or_else(PoisonError::into_inner) = Some(authorizer);
    }

    /// Sends a service's calls (`ec2`) to a plain http server on loopback from now on.
    pub fn route(&self, service: &str, backend: SocketAddr) {
        self.shared.routes.set(service, backend);
    }

    /// Sends one operation's calls to a plain http server on loopback from now on.
    pub fn route_operation(&self, service: &str, operation: &str, backend: SocketAddr) {
        self.shared
            .routes
            .set_operation(service, operation, backend);
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ProxyError> {
    let wrap = |source| ProxyError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    Ok((listener, address))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&shared)));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let some connections end.
                    tracing::warn!(%error, "the proxy could not accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Nagle's algorithm would add up to 40 ms to answers written in two pieces.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            shared
                .answer(request)
                .await
                .map(|answer| answer.map(Full::new))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_SECONDS))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the proxy ended early");
    }
}

impl Shared {
    /// Once a request has been read it is carried out to its end and recorded, even if the caller goes
    /// away meanwhile, as a service would: hence a task of its own.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Dropped> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_LIMIT_BYTES).collect().await else {
            // The caller went away, or sends more than anything in the lab has reason to.
            return Err(Dropped);
        };
        let request = Request::from_parts(parts, body.to_bytes());
        tokio::spawn(async move { self.complete(request).await })
            .await
            .unwrap_or(Err(Dropped))
    }

    async fn complete(&self, request: Request<Bytes>) -> Result<Answer, Dropped> {
        let (parts, body) = request.into_parts();
        let call = describe(&parts, &body);
        let mut entry = Call {
            at_ms: now_ms(),
            service: call.service.clone(),
            operation: call.operation.clone(),
            principal: self.principals.name(&call.access_key_id),
            status: 0,
            error_code: None,
            duration_ms: 0,
            request_bytes: body.len() as u64,
            response_bytes: 0,
            authorization: None,
            fault: None,
            writes: BTreeMap::new(),
        };
        let begun = Instant::now();
        let fault = self.faults.fire(&Subject {
            service: &entry.service,
            operation: &entry.operation,
            principal: &entry.principal,
            body: &body,
        });
        let (id, action) = fault.unzip();
        entry.fault = id;
        let request = Request::from_parts(parts, body.clone());
        let (answer, is_sent) = self
            .carry_out(&call, request, action, &mut entry.authorization)
            .await;
        entry.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(answer) = &answer {
            entry.status = answer.status().as_u16();
            entry.error_code = answer::error_code(answer);
            entry.response_bytes = answer.body().len() as u64;
            if call.service == "dynamodb" && answer.status().is_success() {
                entry.writes = writes::items(&call.operation, &body);
            }
        }
        if let Err(error) = self.journal.record(&entry) {
            tracing::error!(%error, "a call is missing in the journal");
        }
        answer.filter(|_| is_sent).ok_or(Dropped)
    }

    /// The answer, if there is one, and whether the caller gets it.
    async fn carry_out(
        &self,
        call: &Described,
        request: Request<Bytes>,
        action: Option<Action>,
        authorization: &mut Option<Authorization>,
    ) -> (Option<Answer>, bool) {
        let mut done = async |request| {
            let allowed = self.authorize(call, request).await;
            *authorization = allowed.authorization;
            match allowed.request {
                Ok(request) => self.forward(call, request).await,
                Err(refusal) => refusal,
            }
        };
        match action {
            None => (Some(done(request).await), true),
            Some(Action::DelayMs(delay_ms)) => {
                sleep(Duration::from_millis(delay_ms)).await;
                (Some(done(request).await), true)
            }
            Some(Action::LoseAnswer {}) => (Some(done(request).await), false),
            Some(Action::HangMs(hang_ms)) => {
                sleep(Duration::from_millis(hang_ms)).await;
                (None, false)
            }
            Some(Action::HangAnswerMs(hang_ms)) => {
                let answer = done(request).await;
                sleep(Duration::from_millis(hang_ms)).await;
                (Some(answer), false)
            }
            Some(Action::Refuse {
                status,
                code,
                message,
            }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                (Some(answer::error(call, status, &code, &message)), true)
            }
            Some(Action::Replace { from, to }) => {
                let mut answer = done(request).await;
                answer::replace(&mut answer, &from, &to);
                (Some(answer), true)
            }
        }
    }

    /// The request, if its caller may have it carried out; else the answer.
    async fn authorize(&self, call: &Described, request: Request<Bytes>) -> Authorized {
        let authorizer = self.authorizer.read();
        let authorizer = authorizer.unwrap_or_else(PoisonError::into_inner).clone();
        match authorizer {
            Some(authorizer) => authorized::authorized(&authorizer, call, request).await,
            None => Authorized {
                request: Ok(request),
                authorization: None,
            },
        }
    }

    async fn forward(&self, call: &Described, request: Request<Bytes>) -> Answer {
        let (mut parts, body) = request.into_parts();
        parts.uri = self
            .routes
            .target(&call.service, &call.operation, &parts.uri);
        drop_connection_headers(&mut parts.headers);
        let request = Request::from_parts(parts, Full::new(body));
        let mut answer = match self.client.call(request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    service = call.service,
                    operation = call.operation,
                    "a call got no answer from its backend"
                );
                let message = "the lab's backend gave no answer";
                answer::error(call, StatusCode::BAD_GATEWAY, "BadGateway", message)
            }
        };
        if call.service == "sts" && call.operation == "AssumeRole" {
            self.principals.learn(answer.body());
        }
        drop_connection_headers(answer.headers_mut());
        answer
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
