//! What a call needs the right to: actions on resources, with the condition keys that AWS gives them
//! (<https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>).

use super::context::Context;
use crate::emulator::{ACCOUNT, REGION};

/// One right that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `service:Action`.
    pub action: String,
    /// The resource's ARN, or `*`.
    pub resource: String,
    /// The condition keys of this action on this resource.
    pub context: Context,
    /// The resource's own policy allows it to everyone in the account: only a Deny refuses it.
    pub is_granted: bool,
}

impl Ask {
    /// A right without condition keys of its own.
    #[must_use]
    pub fn new(action: &str, resource: impl Into<String>) -> Self {
        Self {
            action: action.to_owned(),
            resource: resource.into(),
            context: Context::default(),
            is_granted: false,
        }
    }

    /// This with condition keys.
    #[must_use]
    pub fn with(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// This, granted by the resource's own policy.
    #[must_use]
    pub fn granted(mut self) -> Self {
        self.is_granted = true;
        self
    }
}

/// The ARN of something in the lab's region and account.
pub(super) fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}")
}
