//! Client tokens: which call a token belongs to, and what a second call with it is answered.

use super::error::{Ec2Error, Ec2Result};
use super::fleet::Fleet;
use super::launch::Reservation;
use super::request::{CreateFleet, RunInstances};
use super::{Ec2, TokenReplay};

/// The longest client token (API reference: 64 ASCII characters).
const TOKEN_LENGTH_MAX: usize = 64;

/// A call that succeeded under a token. A call that failed leaves its token free, so that it may be tried
/// again (EC2 guide, "Ensuring idempotency").
#[derive(Clone, Debug)]
pub(super) enum Remembered {
    Run {
        request: Box<RunInstances>,
        reservation_id: String,
        instance_ids: Vec<String>,
    },
    Fleet {
        request: Box<CreateFleet>,
        answer: Fleet,
    },
}

impl Ec2 {
    /// The answer to a `RunInstances` whose token was used before: the same instances as they are now.
    pub(super) fn replayed_run(&self, request: &RunInstances) -> Ec2Result<Option<Reservation>> {
        let Some(token) = checked(request.client_token.as_deref())? else {
            return Ok(None);
        };
        let Some(Remembered::Run {
            request: first,
            reservation_id,
            instance_ids,
        }) = self.tokens.get(&("RunInstances", token.to_owned()))
        else {
            return Ok(None);
        };
        if **first != *request || self.settings.token_replay == TokenReplay::Mismatch {
            return Err(Ec2Error::token_mismatch());
        }
        let instances = instance_ids
            .iter()
            .filter_map(|id| self.instances.get(id))
            .cloned()
            .collect();
        Ok(Some(Reservation {
            reservation_id: reservation_id.clone(),
            instances,
        }))
    }

    /// The answer to a `CreateFleet` whose token was used before, as [`TokenReplay`] says.
    pub(super) fn replayed_fleet(&self, request: &CreateFleet) -> Ec2Result<Option<Fleet>> {
        let Some(token) = checked(request.client_token.as_deref())? else {
            return Ok(None);
        };
        let Some(Remembered::Fleet {
            request: first,
            answer,
        }) = self.tokens.get(&("CreateFleet", token.to_owned()))
        else {
            return Ok(None);
        };
        if **first != *request {
            return Err(Ec2Error::token_mismatch());
        }
        match self.settings.token_replay {
            TokenReplay::FirstAnswer => Ok(Some(answer.clone())),
            TokenReplay::FleetWithoutInstances => Ok(Some(Fleet {
                fleet_id: answer.fleet_id.clone(),
                instances: Vec::new(),
                errors: Vec::new(),
            })),
            TokenReplay::Mismatch => Err(Ec2Error::token_mismatch()),
        }
    }

    pub(super) fn remember(&mut self, token: Option<&str>, call: Remembered) {
        let action = match call {
            Remembered::Run { .. } => "RunInstances",
            Remembered::Fleet { .. } => "CreateFleet",
        };
        if let Some(token) = token.filter(|t| !t.is_empty()) {
            self.tokens.insert((action, token.to_owned()), call);
        }
    }
}

fn checked(token: Option<&str>) -> Ec2Result<Option<&str>> {
    match token {
        None | Some("") => Ok(None),
        Some(token) if token.is_ascii() && token.len() <= TOKEN_LENGTH_MAX => Ok(Some(token)),
        Some(token) => Err(Ec2Error::invalid_value(format!(
            "Value ({token}) for parameter clientToken is invalid. It must be at most {TOKEN_LENGTH_MAX} ASCII characters."
        ))),
    }
}
