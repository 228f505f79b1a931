//! The adapters on the emulator, all in one, as the suites look at them: with queues whose times are short, an EC2 of
//! the lab's, and the system's clock.

mod bus;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use axum::Router;
use spillway_control::fault::Fault;
use spillway_control::ports::{Clock, Ec2, InstanceSeen, Queues, Terminated};
use spillway_control::record::LaunchAnswer;
use spillway_core::config::{Policy, Site};
use spillway_core::message::{ReportBody, ResumeQueueBody, SuspendQueueBody};
use spillway_core::name::{ClusterName, InstanceId};
use spillway_core::plan::LaunchCall;
use spillway_ec2::Ec2Client;
use spillway_lab::ec2_api::{Ec2Api, NoTemplates};
use spillway_lab::emulator::{ACCOUNT, REGION};
use spillway_lab::ssm::{self, Ssm};
use spillway_runtime::SystemClock;
use spillway_world::ec2::Ec2 as Model;
use spillway_world::sim::{Inbox, calm_ec2};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use bus::EmulatedBus;

use crate::suites::ec2::Behind;
use crate::suites::queues::{Letter, Reader};
use crate::{Place, TABLE};

const SITE: &str = include_str!("../../../infra/examples/spillway.toml");
/// Short, so that a test waits seconds.
const VISIBILITY_SECONDS: u64 = 3;
const MAX_RECEIVES: u32 = 3;

/// See the module's text.
#[derive(Debug)]
pub struct Emulated {
    /// Where it all is.
    pub place: Place,
    ec2: Ec2Client,
    api: Api,
    _tasks: JoinSet<()>,
}

/// The lab's EC2.
struct Api(Ec2Api);

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Emulated {
    /// Starts it all.
    pub async fn start() -> Self {
        let place = Place::start().await;
        let api = Ec2Api::new(calm_ec2(), NoTemplates);
        let mut tasks = JoinSet::new();
        tasks.spawn(api.clone().keep_time());
        let proxy = &place.cloud.proxy;
        proxy.route("ec2", serve(api.router(), &mut tasks).await);
        let ssm = serve(Ssm::default().router(), &mut tasks).await;
        for operation in ssm::OPERATIONS {
            proxy.route_operation("ssm", operation, ssm);
        }
        let own = Self {
            ec2: Ec2Client::new(&place.config),
            place,
            api: Api(api),
            _tasks: tasks,
        };
        for inbox in [
            Inbox::Resume,
            Inbox::Suspend,
            Inbox::Reports,
            Inbox::Updates,
        ] {
            own.shorten(inbox).await;
        }
        own
    }

    /// Messages of this queue come again soon, and not often.
    async fn shorten(&self, inbox: Inbox) {
        let redrive = format!(
            r#"{{"deadLetterTargetArn":"arn:aws:sqs:{REGION}:{ACCOUNT}:lab-dead-letter","maxReceiveCount":{MAX_RECEIVES}}}"#
        );
        let set = self.place.sqs.set_queue_attributes();
        set.queue_url(self.url(inbox))
            .attributes(
                QueueAttributeName::VisibilityTimeout,
                VISIBILITY_SECONDS.to_string(),
            )
            .attributes(QueueAttributeName::RedrivePolicy, redrive)
            .send()
            .await
            .expect("the queue is changed");
    }

    fn url(&self, inbox: Inbox) -> &str {
        let urls = &self.place.urls;
        let url = match inbox {
            Inbox::Resume => &urls.resume,
            Inbox::Suspend => &urls.suspend,
            Inbox::Reports => &urls.reports,
            Inbox::Updates => &urls.updates,
        };
        url.as_deref().expect("a queue has a URL")
    }

    /// Puts a policy where `spillway config push` puts it.
    pub async fn push_policy(&self) -> Policy {
        let text = SITE.replace("cluster = \"hpc\"", "cluster = \"lab\"");
        let policy = Site::parse(&text, "spillway.toml").expect("a site").policy;
        let put = self.place.dynamo.put_item().table_name(TABLE);
        put.item("pk", AttributeValue::S("POLICY#lab".to_owned()))
            .item("policy", AttributeValue::S(policy.to_json()))
            .send()
            .await
            .expect("the policy is put");
        policy
    }
}

/// Serves one of the lab's own services.
async fn serve(router: Router, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    address
}

impl Queues for Emulated {
    async fn send_resume(&self, body: ResumeQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        self.place.queues.send_resume(body, delay_seconds).await
    }

    async fn send_suspend(&self, body: SuspendQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        self.place.queues.send_suspend(body, delay_seconds).await
    }

    async fn send_report(&self, body: ReportBody, delay_seconds: u64) -> Result<(), Fault> {
        self.place.queues.send_report(body, delay_seconds).await
    }

    async fn send_envelope(&self, sealed: &str) -> Result<(), Fault> {
        self.place.queues.send_envelope(sealed).await
    }
}

impl Reader for Emulated {
    fn cluster(&self) -> ClusterName {
        ClusterName::new("lab").expect("a name")
    }

    async fn receive(&self, from: Inbox) -> Vec<Letter> {
        let call = self.place.sqs.receive_message();
        let call = call
            .queue_url(self.url(from))
            .max_number_of_messages(10)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
        let answer = call.send().await.expect("the queue answers");
        let letters = answer.messages.unwrap_or_default().into_iter();
        let letter = |message: aws_sdk_sqs::types::Message| {
            let attributes = message.attributes.expect("attributes");
            let receives = &attributes[&MessageSystemAttributeName::ApproximateReceiveCount];
            Letter {
                handle: message.receipt_handle.expect("a handle"),
                text: message.body.expect("a body"),
                receives: receives.parse().expect("a number"),
            }
        };
        letters.map(letter).collect()
    }

    async fn delete(&self, from: Inbox, letter: Letter) {
        let delete = self.place.sqs.delete_message().queue_url(self.url(from));
        let delete = delete.receipt_handle(letter.handle).send().await;
        delete.expect("the message is deleted");
    }

    async fn dead_letters(&self, _from: Inbox) -> Vec<String> {
        let url = self.place.urls.dead_letter.as_deref();
        let call = self.place.sqs.receive_message();
        let call = call
            .queue_url(url.expect("a queue has a URL"))
            .max_number_of_messages(10)
            // They stay, and are seen by the next look.
            .visibility_timeout(0);
        let answer = call.send().await.expect("the queue answers");
        let messages = answer.messages.unwrap_or_default().into_iter();
        messages.filter_map(|message| message.body).collect()
    }

    fn visibility_ms(&self) -> u64 {
        VISIBILITY_SECONDS * 1000
    }

    fn max_receives(&self, _from: Inbox) -> u32 {
        MAX_RECEIVES
    }
}

impl Ec2 for Emulated {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        self.ec2.launch(call, limit_ms).await
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        self.ec2.find(tags).await
    }

    async fn find_in_reservation(
        &self,
        reservation_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        self.ec2.find_in_reservation(reservation_id, tags).await
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Terminated {
        self.ec2.terminate(ids).await
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        self.ec2.impaired().await
    }

    async fn console(&self, id: &InstanceId) -> Result<String, Fault> {
        self.ec2.console(id).await
    }

    async fn tag(&self, ids: &[InstanceId], tags: &BTreeMap<String, String>) -> Result<(), Fault> {
        self.ec2.tag(ids, tags).await
    }
}

impl Behind for Emulated {
    fn with<R>(&self, act: impl FnOnce(&mut Model) -> R) -> R {
        self.api.0.with(|ec2, _| act(ec2))
    }
}

impl Clock for Emulated {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms()
    }

    async fn sleep_ms(&self, ms: u64) {
        SystemClock.sleep_ms(ms).await;
    }

    fn fresh_id(&self) -> String {
        SystemClock.fresh_id()
    }
}
