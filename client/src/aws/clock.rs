//! How far this machine's clock is off, measured by the `Date` of AWS's own answers.
//!
//! Slurm compares the boot time that slurmd reports with slurmctld's time of the resume request, and munge
//! refuses credentials that are too old: a clock that is off keeps a node out without a word why.
//! On the head node a clock that is ahead makes every envelope look expired.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// The largest difference that is let pass. `Date` has whole seconds and an answer takes some time; munge
/// gives up after 300 s, and slurmctld's clock may be off the other way.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Reads the clock of the service from every answer that passes.
#[derive(Debug, Clone, Default)]
pub struct ServiceClock {
    ahead_ms: Arc<Mutex<Option<i64>>>,
}

impl ServiceClock {
    /// By how many milliseconds the service's clock is ahead of ours; none before the first answer.
    pub fn ahead_ms(&self) -> Option<i64> {
        *self.ahead_ms.lock().expect("no panic while held")
    }

    /// Unix milliseconds by the service's clock, by ours as long as that is not known.
    pub fn now_ms(&self) -> u64 {
        let now = unix_ms(SystemTime::now());
        u64::try_from(now + self.ahead_ms().unwrap_or(0)).unwrap_or(0)
    }

    fn note(&self, date: &str, now: SystemTime) {
        let Ok(service) = DateTime::from_str(date, Format::HttpDate) else {
            return;
        };
        // `Date` cuts the fraction off: on average the service is half a second later than it says.
        let ahead_ms = service.secs() * 1000 + 500 - unix_ms(now);
        *self.ahead_ms.lock().expect("no panic while held") = Some(ahead_ms);
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[dyn_dispatch_hint]
impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.note(date, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_date_tells_how_far_the_clock_is_off() {
        let clock = ServiceClock::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_060);
        clock.note("not a date", now);
        assert_eq!(clock.ahead_ms(), None);
        clock.note("Sun, 09 Sep 2001 01:46:40 GMT", now);
        assert_eq!(clock.ahead_ms(), Some(-59_500));
    }
}
