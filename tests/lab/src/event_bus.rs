//! EventBridge of the lab: what EC2 tells goes to the targets of every deployed rule whose pattern the emulator's own matcher
//! says it fits. What the emulator has said is remembered, for a thousand instances that end would ask it ten thousand times.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spillway_world::ec2::Ec2Event;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::emulator::root::{EventRule, RootClient, RootError};
use crate::emulator::{ACCOUNT, REGION};

/// How long the rules are taken to be as they were: a stack is updated seldom.
const RULES_FRESH: Duration = Duration::from_secs(5);

/// The default event bus.
#[derive(Debug)]
pub struct EventBus {
    root: RootClient,
    known: Mutex<Known>,
    loses: AtomicBool,
}

/// What the emulator has said.
#[derive(Debug, Default)]
struct Known {
    rules: Option<(Instant, Vec<EventRule>)>,
    /// Whether an event of this shape fits a pattern.
    fits: HashMap<(String, String), bool>,
    /// Addresses of queues by their ARNs.
    urls: HashMap<String, String>,
}

impl EventBus {
    /// The bus of the account whose owner `root` is.
    #[must_use]
    pub fn new(root: RootClient) -> Self {
        Self {
            root,
            known: Mutex::default(),
            loses: AtomicBool::new(false),
        }
    }

    /// From now on every event is lost, or none any more: EC2 gives its events on a best-effort basis.
    pub fn lose(&self, loses: bool) {
        self.loses.store(loses, Ordering::Relaxed);
    }

    /// Delivers an event. What cannot be delivered is lost, with a word in the log.
    pub async fn publish(&self, event: &Ec2Event) {
        if self.loses.load(Ordering::Relaxed) {
            return info!(?event, "an event is lost");
        }
        let event = event.to_event_bridge(&uuid::Uuid::new_v4().to_string(), ACCOUNT, REGION);
        let queues = match self.queues(&event).await {
            Ok(queues) => queues,
            Err(error) => return warn!(%error, "could not match an event"),
        };
        for queue in queues {
            if let Err(error) = self.root.send_message(&queue, &event.to_string()).await {
                warn!(queue, %error, "could not hand an event to a rule's target");
            }
        }
    }

    /// The queues that an event goes to.
    async fn queues(&self, event: &Value) -> Result<Vec<String>, RootError> {
        let mut known = self.known.lock().await;
        let is_fresh = |at: &Instant| at.elapsed() < RULES_FRESH;
        if !known.rules.as_ref().is_some_and(|(at, _)| is_fresh(at)) {
            known.rules = Some((Instant::now(), self.root.event_rules().await?));
        }
        let rules = known.rules.as_ref().map(|(_, rules)| rules.clone());
        let mut queues = Vec::new();
        for rule in rules.unwrap_or_default() {
            if self.fits(&mut known, &rule.pattern, event).await? {
                for target in &rule.targets {
                    queues.push(self.url(&mut known, target).await?);
                }
            }
        }
        Ok(queues)
    }

    /// Events that differ in nothing but the instance fit the same patterns: a rule cannot know instances.
    async fn fits(
        &self,
        known: &mut Known,
        pattern: &str,
        event: &Value,
    ) -> Result<bool, RootError> {
        let mut detail = event["detail"].clone();
        detail["instance-id"].take();
        let shape = json!([event["source"], event["detail-type"], detail]).to_string();
        let key = (pattern.to_owned(), shape);
        if let Some(fits) = known.fits.get(&key) {
            return Ok(*fits);
        }
        let fits = self.root.event_matches(pattern, event).await?;
        known.fits.insert(key, fits);
        Ok(fits)
    }

    async fn url(&self, known: &mut Known, arn: &str) -> Result<String, RootError> {
        if let Some(url) = known.urls.get(arn) {
            return Ok(url.clone());
        }
        let name = arn.rsplit(':').next().unwrap_or(arn);
        let ask = json!({"QueueName": name});
        let answer = self.root.json("sqs", "AmazonSQS.GetQueueUrl", &ask).await?;
        let url = answer["QueueUrl"].as_str().unwrap_or_default().to_owned();
        known.urls.insert(arn.to_owned(), url.clone());
        Ok(url)
    }
}
