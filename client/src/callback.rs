//! What comes home: sealed envelopes with updates for slurmctld, from the updates queue (the agent) or from
//! SSM (`spillway apply`). Both go the same way: verify, take the turn, look at what was asked and what is
//! known, judge, call scontrol, remember, give the turn back, acknowledge. Whichever copy of an envelope
//! comes second finds what the first one has done.

mod apply;
mod besides;
mod judge;
mod ledger;
mod memory;
pub mod refused;
mod settings;
mod turn;
mod verify;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_core::config::{CallbackSettings, ClientConfig};
use spillway_core::envelope::{Envelope, Update, UpdateAction};
use spillway_core::message::{Acknowledge, Message, ReportBody};
use spillway_core::name::{ClusterName, NodeName};

use crate::aws::sqs::{Queue, Sqs, SqsError};
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::slurm::{NodeRow, Slurm, SlurmError};

pub use apply::ApplyError;
pub use ledger::{Keeper, Ledger, LedgerError};
pub use memory::{Answer, last_request};
pub use settings::Settings;
pub use turn::TurnError;
pub use verify::{Fate, Refusal};

/// Takes envelopes, whichever way they come.
#[derive(Debug)]
pub struct Receiver {
    cluster: ClusterName,
    spool_directory: PathBuf,
    settings: Settings,
    ledger: Mutex<Ledger>,
    /// How Slurm is asked and told.
    pub slurm: Slurm,
    /// The queues.
    pub sqs: Sqs,
}

/// How a copy of an envelope came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// By the updates queue.
    Queue {
        /// SQS's own id of the message; the same when it is delivered again.
        message_id: String,
    },
    /// By SSM.
    Ssm {
        /// The head node that was told: SSM tells each of them.
        host: String,
    },
    /// A person gave it to `spillway apply`.
    ByHand,
}

/// What became of one copy of an envelope.
#[derive(Debug)]
pub enum Outcome {
    /// It was dealt with, now or when another copy came.
    Answered(Answer),
    /// It changed nothing.
    Refused(Refusal),
    /// It could not be dealt with now, and must come again.
    Failed(ReceiveError),
}

/// Why an envelope could not be dealt with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReceiveError {
    /// Others are at it for too long.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// slurmctld is away.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// The spool or the memory, which the disk or a person must set right.
    #[error("{0}")]
    Ledger(String),
}

impl From<LedgerError> for ReceiveError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error.to_string())
    }
}

/// Why the control plane was not told what became of an envelope.
#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// The reports queue.
    #[error(transparent)]
    Sqs(#[from] SqsError),
    /// It was told, but that could not be noted: it will be told again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Arrival {
    /// Tells copies of one envelope apart.
    fn key(&self) -> String {
        match self {
            Self::Queue { message_id } => format!("queue:{message_id}"),
            Self::Ssm { host } => format!("ssm:{host}"),
            Self::ByHand => "hand".to_owned(),
        }
    }

    /// Whether nobody but a replayer sends this copy after these: the control plane sends an envelope once by
    /// each road, but the queue may deliver a message more than once.
    fn is_replay_after(&self, copies: &BTreeSet<String>) -> bool {
        match self {
            Self::Queue { .. } => {
                !copies.contains(&self.key())
                    && copies.iter().any(|copy| copy.starts_with("queue:"))
            }
            Self::Ssm { .. } => copies.contains(&self.key()),
            Self::ByHand => false,
        }
    }
}

/// Whether an update changes what those of other actions are judged by.
fn changes_states(update: &Update) -> bool {
    !matches!(
        update.action,
        UpdateAction::Address { .. } | UpdateAction::Fail { .. }
    )
}

impl Receiver {
    /// Opens spool and memory. `config_file`: where `config` was read, to be looked at again.
    pub fn open(
        config: &ClientConfig,
        config_file: &Path,
        keeper: Keeper,
        slurm: Slurm,
        sqs: Sqs,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            cluster: config.cluster.clone(),
            spool_directory: config.spool_directory.clone(),
            settings: Settings::new(config_file, config.callback.clone()),
            ledger: Mutex::new(Ledger::open(&config.spool_directory, keeper)?),
            slurm,
            sqs,
        })
    }

    /// Held for moments and never across an await.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves the ledger whole: it is changed only by its own methods.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the configuration says now.
    pub fn settings(&self) -> CallbackSettings {
        self.settings.now()
    }

    /// Deals with copies of envelopes that came together, in their order; one outcome each. `patience`: how
    /// long to wait while others deal with theirs.
    pub async fn receive(&self, copies: &[(Arrival, &str)], patience: Duration) -> Vec<Outcome> {
        let trusted = self.settings.now().trusted_keys;
        let verify = |text| verify::verify(text, &self.cluster, &trusted, now_ms());
        let verified: Vec<Result<Envelope, Refusal>> =
            copies.iter().map(|(_, text)| verify(text)).collect();
        // Without one that is ours nobody is kept waiting.
        let turn = if verified.iter().any(Result::is_ok) {
            self.turn(patience).await.map(Some)
        } else {
            Ok(None)
        };
        let mut rows = None;
        let mut trouble = turn.as_ref().err().cloned();
        let mut outcomes = Vec::with_capacity(copies.len());
        for ((arrival, _), envelope) in copies.iter().zip(verified) {
            outcomes.push(match (envelope, &trouble) {
                (Err(refusal), _) => Outcome::Refused(refusal),
                (Ok(_), Some(error)) => Outcome::Failed(error.clone()),
                (Ok(envelope), None) => match self.deal_with(&envelope, arrival, &mut rows).await {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        // The others would fare no better.
                        trouble = Some(error.clone());
                        Outcome::Failed(error)
                    }
                },
            });
        }
        drop(turn);
        outcomes
    }

    async fn turn(&self, patience: Duration) -> Result<turn::Turn, ReceiveError> {
        let turn = turn::Turn::take(&self.spool_directory, patience).await?;
        self.ledger().look()?;
        Ok(turn)
    }

    /// Deals with one envelope of ours. `asked`: what slurmctld says of the nodes, asked once for all that came
    /// together, and after they came.
    async fn deal_with(
        &self,
        envelope: &Envelope,
        arrival: &Arrival,
        asked: &mut Option<HashMap<NodeName, NodeRow>>,
    ) -> Result<Outcome, ReceiveError> {
        {
            let mut ledger = self.ledger();
            if let Some(answer) = ledger.memory().answer_to(&envelope.envelope_id, arrival) {
                ledger.memory().save().map_err(LedgerError::from)?;
                return Ok(Outcome::Answered(answer));
            }
        }
        let rows = match asked {
            Some(rows) => rows,
            None => asked.insert(crate::slurm::by_name(self.slurm.cloud_nodes().await?)),
        };
        let results = apply::apply(self, envelope, rows).await;
        if envelope.updates.iter().any(changes_states) {
            // Those that came together with it are judged by what is so now.
            *asked = None;
        }
        let results = match results {
            Ok(results) => results,
            Err(ApplyError::Malformed(words)) => {
                return Ok(Outcome::Refused(Refusal::unreadable(words)));
            }
            Err(ApplyError::Slurm(error)) => return Err(error.into()),
            Err(ApplyError::Ledger(error)) => return Err(error.into()),
        };
        let mut ledger = self.ledger();
        let answer = ledger
            .memory()
            .dealt_with(envelope, arrival, results, now_ms());
        ledger.memory().save().map_err(LedgerError::from)?;
        Ok(Outcome::Answered(answer))
    }

    /// Tells the control plane what became of an envelope, unless it knows.
    pub async fn acknowledge(&self, answer: &Answer) -> Result<(), AcknowledgeError> {
        if answer.acknowledged {
            return Ok(());
        }
        let acknowledge = Acknowledge {
            envelope_id: answer.envelope_id.clone(),
            results: answer.results.clone(),
        };
        self.report(ReportBody::Acknowledge(acknowledge)).await?;
        crash::point(CrashPoint::Acknowledge);
        let mut ledger = self.ledger();
        ledger.memory().acknowledged(&answer.envelope_id);
        Ok(ledger.memory().save().map_err(LedgerError::from)?)
    }

    /// Puts a message on the reports queue.
    pub async fn report(&self, body: ReportBody) -> Result<(), SqsError> {
        let message = Message::new(self.cluster.clone(), body);
        self.sqs.send(Queue::Reports, &message.to_json()).await
    }
}
