//! Whose word a report is. SQS stamps each message with the unique id of the credentials that sent it, and nobody can
//! write another's there: of its own fate an instance is believed, and it is believed nothing else.

use spillway_core::message::ReportBody;
use spillway_core::name::InstanceId;

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A burst node: EC2 names the sessions of an instance's role by the instance's id.
    Instance(InstanceId),
    /// Anybody else who has the right to send: the agent on the head node, or one of our functions.
    Other,
}

/// Why a report is refused: it would be a lie or a mistake however often it is read.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// A session that is no instance's.
    #[error("{sender_id} is a session of the burst nodes' role and of no instance")]
    NoInstance {
        /// SQS's `SenderId`.
        sender_id: String,
    },
    /// An instance speaks for another one.
    #[error("instance {sender} reports for instance {named}")]
    AnothersName {
        /// Who sent it.
        sender: InstanceId,
        /// Whom it names as its sender.
        named: InstanceId,
    },
    /// Who is no burst node speaks for one.
    #[error("a report of instance {named} was not sent by it")]
    NotAnInstance {
        /// Whom it names as its sender.
        named: InstanceId,
    },
    /// An instance sends what only the head node or our own functions send.
    #[error("instance {sender} sends what no burst node has to say")]
    NotForInstances {
        /// Who sent it.
        sender: InstanceId,
    },
}

impl Sender {
    /// From SQS's `SenderId`: `AIDA…` for a user, `AROA…:session` for a session of a role
    /// (SQS API Reference, `ReceiveMessage`). `burst_node_role_id` is the unique id of the burst nodes' role.
    pub fn of(sender_id: &str, burst_node_role_id: &str) -> Result<Self, SenderError> {
        match sender_id.split_once(':') {
            Some((role_id, session)) if role_id == burst_node_role_id => {
                let instance = InstanceId::new(session).map_err(|_| SenderError::NoInstance {
                    sender_id: sender_id.to_owned(),
                })?;
                Ok(Self::Instance(instance))
            }
            _ => Ok(Self::Other),
        }
    }

    /// Whether this is the sender's to say.
    pub fn may_say(&self, report: &ReportBody) -> Result<(), SenderError> {
        let named = match report {
            ReportBody::Ready(ready) => Some(&ready.instance_id),
            ReportBody::Failed(failed) => Some(&failed.instance_id),
            ReportBody::Notice(notice) => Some(&notice.instance_id),
            ReportBody::Acknowledge(_)
            | ReportBody::Heartbeat(_)
            | ReportBody::NodeStates(_)
            | ReportBody::Requeue(_)
            | ReportBody::Resend(_)
            | ReportBody::Command(_)
            | ReportBody::JoinDeadline(_) => None,
        };
        match (self, named) {
            (Self::Other, None) => Ok(()),
            (Self::Instance(sender), Some(named)) if sender == named => Ok(()),
            (Self::Instance(sender), Some(named)) => Err(SenderError::AnothersName {
                sender: sender.clone(),
                named: named.clone(),
            }),
            (Self::Other, Some(named)) => Err(SenderError::NotAnInstance {
                named: named.clone(),
            }),
            (Self::Instance(sender), None) => Err(SenderError::NotForInstances {
                sender: sender.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use spillway_core::message::{
        Acknowledge, CommandSent, Heartbeat, JoinDeadline, NodeFailed, NodeNotice, NodeReady,
        NodeStates, RequeueJobs, Resend,
    };
    use spillway_core::name::{Generation, NodeName};

    use super::*;

    const ROLE: &str = "AROAEXAMPLEBURSTNODE1";
    const ONE: &str = "i-0123456789abcdef0";
    const TWO: &str = "i-0123456789abcdef1";

    fn instance(id: &str) -> InstanceId {
        InstanceId::new(id).unwrap()
    }

    /// One report of each kind that a burst node of this id would send, then one of each of the others.
    fn reports(id: &str) -> ([ReportBody; 3], [ReportBody; 7]) {
        let generation = Generation::new(5).unwrap();
        let ready = NodeReady {
            instance_id: instance(id),
            node: NodeName::new("aws-1").unwrap(),
            generation,
        };
        let failed = NodeFailed {
            instance_id: instance(id),
            node: None,
            reason: "no munge".to_owned(),
        };
        let notice = NodeNotice {
            instance_id: instance(id),
            action: "terminate".to_owned(),
            until_ms: Some(2),
        };
        let acknowledge = Acknowledge {
            envelope_id: "e".to_owned(),
            results: Vec::new(),
        };
        let heartbeat = Heartbeat {
            sent_ms: 1,
            hello: true,
            slurm_version: None,
            spooled: 0,
            oldest_spooled_ms: None,
            clock_skew_ms: None,
            refused_envelopes: BTreeMap::new(),
        };
        let states = NodeStates {
            observed_ms: 1,
            states: Vec::new(),
        };
        let requeue = RequeueJobs {
            instance_id: instance(id),
            node: NodeName::new("aws-1").unwrap(),
            at_ms: 1,
        };
        let resend = Resend {
            nodes: "aws-1".to_owned(),
            attempt: 1,
        };
        let deadline = JoinDeadline {
            nodes: "aws-1".to_owned(),
            generation,
            deadline_ms: 1,
            put_back: false,
        };
        let command = CommandSent {
            command_id: "c".to_owned(),
            head_nodes: Vec::new(),
        };
        (
            [
                ReportBody::Ready(ready),
                ReportBody::Failed(failed),
                ReportBody::Notice(notice),
            ],
            [
                ReportBody::Acknowledge(acknowledge),
                ReportBody::Heartbeat(heartbeat),
                ReportBody::NodeStates(states),
                ReportBody::Requeue(requeue),
                ReportBody::Resend(resend),
                ReportBody::Command(command),
                ReportBody::JoinDeadline(deadline),
            ],
        )
    }

    #[test]
    fn an_instance_is_known_by_its_role_and_its_session() {
        let of = |sender_id: &str| Sender::of(sender_id, ROLE);
        assert_eq!(
            of(&format!("{ROLE}:{ONE}")).unwrap(),
            Sender::Instance(instance(ONE))
        );
        for other in [
            "AIDAEXAMPLEHEADNODE12",
            "123456789012",
            // Anybody may name a session of another role as he likes.
            "AROAEXAMPLEREPORT1234:i-0123456789abcdef0",
            "AROAEXAMPLECALLBACK12:lab-callback",
            ROLE,
            "",
        ] {
            assert_eq!(of(other).unwrap(), Sender::Other, "{other}");
        }
        for nobody in [
            "",
            "lab-report",
            "i-",
            "i-0123456789abcdef0:i-0123456789abcdef1",
        ] {
            of(&format!("{ROLE}:{nobody}")).unwrap_err();
        }
    }

    #[test]
    fn an_instance_speaks_for_itself_alone() {
        let (of_nodes, of_others) = reports(ONE);
        let one = Sender::Instance(instance(ONE));
        let two = Sender::Instance(instance(TWO));
        for report in &of_nodes {
            one.may_say(report).unwrap();
            two.may_say(report).unwrap_err();
            Sender::Other.may_say(report).unwrap_err();
        }
        for report in &of_others {
            one.may_say(report).unwrap_err();
            Sender::Other.may_say(report).unwrap();
        }
    }

    #[test]
    fn a_refusal_names_both() {
        let ([ready, ..], _) = reports(ONE);
        let two = Sender::Instance(instance(TWO));
        assert_eq!(
            two.may_say(&ready).unwrap_err().to_string(),
            format!("instance {TWO} reports for instance {ONE}")
        );
    }
}
