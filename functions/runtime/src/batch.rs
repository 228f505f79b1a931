//! One invocation: what Lambda says of it, how much time is left, and what a panic of a use-case becomes.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use lambda_runtime::Context;
use spillway_control::launch::Budget;
use spillway_control::ports::Clock;
use spillway_core::name::ClusterName;

use crate::clock::SystemClock;

/// Nothing new is begun when less than this is left: a use-case needs some seconds to store what it learnt.
const LEAST_TIME_MS: u64 = 6_000;

/// One invocation of a function.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// `launch`, `terminate`, `callback` or `report`.
    pub function: &'static str,
    /// Whose control plane this is.
    pub cluster: &'a ClusterName,
    /// Lambda's id of the invocation.
    pub request_id: &'a str,
    /// When Lambda ends it, Unix milliseconds.
    pub ends_ms: u64,
}

impl<'a> Invocation<'a> {
    /// From Lambda's own words.
    #[must_use]
    pub fn new(function: &'static str, cluster: &'a ClusterName, context: &'a Context) -> Self {
        Self {
            function,
            cluster,
            request_id: &context.request_id,
            ends_ms: context.deadline,
        }
    }

    /// The time a use-case has.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget {
            ends_ms: self.ends_ms,
        }
    }

    pub(crate) fn has_time(&self) -> bool {
        SystemClock.now_ms() + LEAST_TIME_MS < self.ends_ms
    }
}

/// Runs `work`; a panic becomes its message.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| words(panic.as_ref()))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
