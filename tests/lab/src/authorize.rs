//! IAM's authorization for the operations that the emulator behind the proxy gets wrong: from the policies as
//! they are deployed, for the principal that calls, with AWS's resources and condition keys.

mod accounts;
mod ask;
mod condition;
pub mod context;
mod dynamodb;
mod ec2;
mod needs;
mod pattern;
pub mod policy;
pub mod scope;
mod ssm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use serde_json::Value;

use self::accounts::Accounts;
pub use self::accounts::Principal;
pub use self::ask::Ask;
use self::context::Context;
use self::dynamodb::PartitionKeys;
use self::policy::{Decision, PolicyError, Request, decide};
use self::scope::{Backend, Left};
use crate::ec2_api::Ec2Api;
use crate::emulator::root::{RootClient, RootError, Signed};

/// Why the lab cannot say whether a call is allowed. It is refused then, and the lab has to be taught.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// The emulator did not say who calls or what its policies are.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A policy that the lab cannot evaluate.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Something of IAM that the lab does not know.
    #[error("teach the lab {0}")]
    Unknown(&'static str),
    /// A call that the lab does not know how to read.
    #[error("teach the lab to authorize {0}")]
    Unread(String),
}

/// Whether a call may be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not, for this right.
    Refused(Refusal),
    /// It is for the service itself to refuse: it cannot be what it says it is.
    Malformed,
}

/// A right that the caller lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `service:Action`.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
    /// The sentence of AWS's answer.
    pub message: String,
}

/// What came of looking at a call.
#[derive(Debug)]
pub(crate) enum Looked {
    /// Who signed it, and whether it may be carried out.
    At(Verdict),
    /// Its signature is not good: what the service answers to that.
    Unsigned(http::Response<Bytes>),
}

/// Decides for the proxy. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    root: RootClient,
    ec2: Ec2Api,
    shared: Arc<Shared>,
}

struct Shared {
    accounts: Accounts,
    /// Who is behind a key. The emulator checks each call's signature; a key never changes hands.
    principals: Mutex<HashMap<String, Principal>>,
    /// Keys that instance metadata handed out, and the instance's ARN.
    instances: Mutex<HashMap<String, String>>,
    /// Partition keys by table. A table keeps its own for life.
    tables: Mutex<BTreeMap<String, PartitionKeys>>,
}

impl Authorizer {
    /// Decides by the emulator's IAM and by the instances and templates of `ec2`.
    #[must_use]
    pub fn new(root: RootClient, ec2: Ec2Api) -> Self {
        let shared = Shared {
            accounts: Accounts::new(root.clone()),
            principals: Mutex::default(),
            instances: Mutex::default(),
            tables: Mutex::default(),
        };
        Self {
            root,
            ec2,
            shared: Arc::new(shared),
        }
    }

    /// Notes that instance metadata handed out a key: calls signed by it come with `ec2:SourceInstanceArn`.
    pub fn handed_out(&self, access_key_id: &str, instance_arn: &str) {
        lock(&self.shared.instances).insert(access_key_id.to_owned(), instance_arn.to_owned());
    }

    /// Reads policies anew from now on; without this they are kept for two seconds.
    pub fn forget_policies(&self) {
        self.shared.accounts.forget();
    }

    /// Whether a principal has all these rights. `context`: condition keys of the call beside the principal's own.
    pub async fn authorize(
        &self,
        principal: &Principal,
        asks: &[Ask],
        context: &Context,
    ) -> Result<Verdict, AuthorizeError> {
        let Some(account) = self.shared.accounts.of(principal).await? else {
            return Ok(Verdict::Allowed);
        };
        let caller = account.keys(principal).and(context);
        for ask in asks {
            let keys = caller.clone().and(&ask.context);
            let request = Request {
                action: &ask.action,
                resource: &ask.resource,
                context: &keys,
            };
            let why = match decide(&account.policies, &request)? {
                Decision::Allowed => continue,
                Decision::NotAllowed if ask.is_granted => continue,
                Decision::NotAllowed => {
                    format!(
                        "because no identity-based policy allows the {} action",
                        ask.action
                    )
                }
                Decision::Denied(_) => {
                    "with an explicit deny in an identity-based policy".to_owned()
                }
            };
            return Ok(Verdict::Refused(Refusal {
                action: ask.action.clone(),
                resource: ask.resource.clone(),
                message: format!(
                    "User: {} is not authorized to perform: {} on resource: {} {why}",
                    account.caller_arn(principal),
                    ask.action,
                    ask.resource
                ),
            }));
        }
        Ok(Verdict::Allowed)
    }

    /// Looks at a call that falls under `left`.
    pub(crate) async fn look(
        &self,
        left: &Left,
        operation: &str,
        access_key_id: &str,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Looked, AuthorizeError> {
        let principal = match self.principal(left, access_key_id, parts, body).await? {
            Ok(principal) => principal,
            Err(answer) => return Ok(Looked::Unsigned(answer)),
        };
        let mut context = Context::default();
        if let Some(arn) = lock(&self.shared.instances).get(access_key_id) {
            context.set("ec2:SourceInstanceARN", arn);
        }
        let Some(asks) = self.asks(left, operation, body).await? else {
            return Ok(Looked::At(Verdict::Malformed));
        };
        let verdict = self.authorize(&principal, &asks, &context).await?;
        Ok(Looked::At(verdict))
    }

    /// Who signed the call, or the answer to a bad signature.
    async fn principal(
        &self,
        left: &Left,
        access_key_id: &str,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Result<Principal, http::Response<Bytes>>, AuthorizeError> {
        // Where the emulator carries the call out it checks the signature then.
        let known = lock(&self.shared.principals).get(access_key_id).cloned();
        if let Some(known) = known
            && left.backend != Backend::Lab
        {
            return Ok(Ok(known));
        }
        match self.root.who_signed(parts, body).await? {
            Signed::Not(answer) => Ok(Err(answer)),
            Signed::By(arn) => {
                let principal = Principal::from_arn(&arn)
                    .ok_or(AuthorizeError::Unknown("this kind of principal"))?;
                lock(&self.shared.principals).insert(access_key_id.to_owned(), principal.clone());
                Ok(Ok(principal))
            }
        }
    }

    /// The rights that a call needs; none if it cannot be read as a call of its service.
    async fn asks(
        &self,
        left: &Left,
        operation: &str,
        body: &Bytes,
    ) -> Result<Option<Vec<Ask>>, AuthorizeError> {
        if left.service == "ec2" {
            return self.ec2_asks(body).await;
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Ok(None);
        };
        match left.service {
            "dynamodb" => self.dynamodb_asks(operation, &body).await,
            "ssm" => self.ssm_asks(operation, &body).await,
            other => Err(AuthorizeError::Unread(format!("{other} {operation}"))),
        }
    }
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
