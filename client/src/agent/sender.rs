//! The one sender: requests go out in the order of their stamps, queue by queue. While a queue cannot be
//! reached its requests wait, a resume until its deadline ([`super::expired`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::{Agent, expired, known_jobs};
use crate::aws::sqs::SqsError;
use crate::callback::LedgerError;
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::spool::{Header, Target};

/// How often the spool is looked at without a wake: a wake may be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The first pause after a failed attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause. It is short because it is what a job waits when the network is back, and one
/// connection attempt every five seconds burdens nobody.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Sends for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) -> Result<(), LedgerError> {
    let mut backoff = BACKOFF_MIN;
    loop {
        let looked = agent.ledger().look();
        let trouble = match looked {
            Ok(()) => pass(&agent).await,
            Err(error) => Err(error),
        };
        let pause = match trouble {
            Ok(None) => {
                backoff = BACKOFF_MIN;
                LOOK_INTERVAL
            }
            Ok(Some(error)) => {
                warn!(pause_ms = backoff.as_millis(), "cannot send: {error}");
                let pause = backoff;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                pause
            }
            Err(error) => {
                // The disk is full, say: nothing can be promised until it is not.
                error!("the spool cannot be used: {error}");
                BACKOFF_MAX
            }
        };
        // After a failure a wake does not shorten the pause, or each call of Slurm would cost one attempt.
        if backoff > BACKOFF_MIN {
            tokio::time::sleep(pause).await;
        } else {
            let _ = tokio::time::timeout(pause, agent.wake.notified()).await;
        }
    }
}

/// Tries each queue until it fails once; one of the failures.
async fn pass(agent: &Agent) -> Result<Option<SqsError>, LedgerError> {
    let mut trouble: HashMap<Target, SqsError> = HashMap::new();
    let unsent = agent.ledger().unsent();
    for request in unsent {
        if trouble.contains_key(&request.target) || expired::is_late(&request) {
            continue;
        }
        let Some(parts) = agent.ledger().parts(request.generation) else {
            // It was given up meanwhile, or its file cannot be read: the others can be.
            continue;
        };
        match send(agent, &request, &parts).await? {
            Ok(()) => agent.connection.works(),
            Err(error) if error.is_for_good() => {
                agent.connection.works();
                refuse(agent, &request, &error)?;
            }
            Err(error) => {
                agent.connection.lost();
                agent.send_trouble().insert(request.target, error.clone());
                trouble.insert(request.target, error);
            }
        }
    }
    let one = trouble.values().next().cloned();
    *agent.send_trouble() = trouble;
    Ok(one)
}

/// Puts aside what SQS will never take: it must not hold up what is behind it. The nodes of a resume are
/// failed in Slurm, with SQS's words.
fn refuse(agent: &Agent, request: &Header, error: &SqsError) -> Result<(), LedgerError> {
    error!(
        request_id = %request.request_id,
        generation = %request.generation,
        nodes = %request.nodes,
        "the request is put aside: {error}"
    );
    if request.target == Target::Resume {
        let reason = format!("spillway: the resume request could not be sent: {error}");
        expired::give_up(agent, request, reason)?;
    }
    agent.ledger().refused(request.generation)
}

async fn send(
    agent: &Agent,
    request: &Header,
    parts: &[String],
) -> Result<Result<(), SqsError>, LedgerError> {
    let started_ms = now_ms();
    for part in parts {
        let part = known_jobs::complete(agent, request.target, part).await;
        let sent = agent.receiver.sqs.send(request.target.into(), &part).await;
        if let Err(error) = sent {
            return Ok(Err(error));
        }
    }
    crash::point(CrashPoint::Send);
    agent.ledger().sent(request.generation)?;
    info!(
        request_id = %request.request_id,
        generation = %request.generation,
        nodes = %request.nodes,
        messages = parts.len(),
        since_call_ms = now_ms().saturating_sub(request.generation.at_ms()),
        duration_ms = now_ms().saturating_sub(started_ms),
        "sent",
    );
    Ok(Ok(()))
}
