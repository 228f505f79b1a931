//! The lab's EC2 over HTTP: the Query API (version 2016-11-15, forms by POST, XML answers) in front of the
//! model [`spillway_world::ec2::Ec2`]. Time is the system's. An action or a parameter that is not known is
//! refused, never ignored.
//!
//! Requests are not authenticated here: the proxy in front decides who may do what.

mod answer;
mod params;
pub(crate) mod read;
mod template_xml;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use http::{StatusCode, header};
use spillway_world::ec2::{
    Ec2, Ec2Error, Ec2Event, Ec2Result, LaunchTemplate, LaunchTemplateSpecification,
};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use template_xml::{TemplateXmlError, parse_launch_template_versions};

use params::Params;
use read::Request;

/// How often the model is told the time when nobody calls it. State changes reach the listeners at most this
/// late; far below the shortest delay a lab sets.
const TICK: Duration = Duration::from_millis(20);

/// Where launch templates come from that the model does not know yet.
pub trait TemplateSource: Send + Sync {
    /// The template named, with all its versions; with neither id nor name, all templates there are. An
    /// empty list if there is none. [`parse_launch_template_versions`] reads them from EC2's XML.
    fn fetch<'a>(
        &'a self,
        which: &'a LaunchTemplateSpecification,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LaunchTemplate>>>;
}

/// For an EC2 whose templates were all put into the model by hand.
#[derive(Clone, Copy, Debug)]
pub struct NoTemplates;

impl TemplateSource for NoTemplates {
    fn fetch<'a>(
        &'a self,
        _: &'a LaunchTemplateSpecification,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LaunchTemplate>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// The EC2 of a lab: the model, who listens to it, and where templates come from. Cloning shares it.
#[derive(Clone)]
pub struct Ec2Api {
    shared: Arc<Mutex<Shared>>,
    templates: Arc<dyn TemplateSource>,
}

struct Shared {
    ec2: Ec2,
    listeners: Vec<mpsc::UnboundedSender<Ec2Event>>,
}

impl Ec2Api {
    /// Serves `ec2`, looking up launch templates it does not know in `templates`.
    pub fn new(ec2: Ec2, templates: impl TemplateSource + 'static) -> Self {
        let shared = Shared {
            ec2,
            listeners: Vec::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            templates: Arc::new(templates),
        }
    }

    /// Everything that happens to instances from now on, in order, without loss.
    #[must_use]
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Ec2Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.push(sender);
        receiver
    }

    /// Works on the model itself, at the present time (ms since 1970), and tells the listeners what came
    /// of it. For the hypervisor (a shutdown from inside, console output) and for tests (capacity, spot
    /// interruptions, settings).
    pub fn with<T>(&self, act: impl FnOnce(&mut Ec2, u64) -> T) -> T {
        let mut shared = self.lock();
        let now_ms = now_ms();
        shared.ec2.advance(now_ms);
        let answer = act(&mut shared.ec2, now_ms);
        let Shared { ec2, listeners } = &mut *shared;
        for event in ec2.take_events() {
            listeners.retain(|listener| listener.send(event.clone()).is_ok());
        }
        answer
    }

    /// Lets time pass for the model, for ever: this is what brings instances from pending to running while
    /// nobody calls. Run it as a task beside the server.
    pub async fn keep_time(self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            self.with(|_, _| ());
        }
    }

    /// The Query API, at `POST /`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", post(serve))
            .with_state(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // A panic in one call (a test's closure, say) must not take EC2 from all others.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a call without carrying it out. The launch templates it names are in the model then.
    pub(crate) async fn understand(&self, form: &[u8]) -> Ec2Result<Request> {
        let pairs = form_urlencoded::parse(form).into_owned();
        let request = Request::read(Params::from_pairs(pairs))?;
        self.fetch_templates(&request).await?;
        Ok(request)
    }

    async fn call(&self, form: &[u8], request_id: &str) -> Ec2Result<String> {
        let request = self.understand(form).await?;
        self.with(|ec2, now_ms| answer::answer(ec2, now_ms, &request, request_id))
    }

    /// Puts into the model what the call needs and the model may not have. `$Latest` and `$Default` may have
    /// moved since, so only a version known by its number saves the look-up.
    async fn fetch_templates(&self, request: &Request) -> Ec2Result<()> {
        for which in request.launch_templates() {
            let number: Option<u64> = which.version.as_deref().and_then(|v| v.parse().ok());
            let known = self.with(|ec2, _| {
                let template = ec2.launch_template(&which);
                number.is_some_and(|n| template.is_some_and(|t| t.versions.contains_key(&n)))
            });
            if known {
                continue;
            }
            let fetched = self.templates.fetch(&which).await.map_err(|error| {
                tracing::error!(
                    error = format!("{error:#}"),
                    ?which,
                    "failed to look up a launch template"
                );
                Ec2Error::server(
                    "InternalError",
                    format!("launch template look-up failed: {error:#}"),
                    500,
                )
            })?;
            self.with(|ec2, _| fetched.into_iter().for_each(|t| ec2.put_launch_template(t)));
        }
        Ok(())
    }
}

async fn serve(State(api): State<Ec2Api>, form: Bytes) -> Response {
    let request_id = Uuid::new_v4().to_string();
    let (status, body) = match api.call(&form, &request_id).await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            (
                status,
                writer::refusal(&error.code, &error.message, &request_id),
            )
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "text/xml;charset=UTF-8".to_owned()),
        (
            header::HeaderName::from_static("x-amzn-requestid"),
            request_id,
        ),
    ];
    (status, headers, body).into_response()
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
