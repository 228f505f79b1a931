//! What every Lambda has around its use-case: logs, metrics, configuration from the environment, and loops
//! over batches in which one bad record harms no other.

mod batch;
mod clock;
mod environment;
mod history;
mod metrics;
mod records;
mod stream;
mod together;
mod trace;

pub use clock::SystemClock;
pub use environment::{Environment, EnvironmentError};
pub use history::handle as handle_history;
pub use records::{Failure, Sent, handle as handle_messages};
pub use stream::handle as handle_changes;
pub use together::handle as handle_together;
pub use trace::start_logs;

pub use batch::Invocation;
