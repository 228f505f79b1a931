//! Stories: what a site may live through, on a whole lab. Each test has a lab of its own.

mod agent;
mod backup;
mod by_hand;
mod capacity;
mod caps;
mod churn;
mod clusters;
mod events;
mod explain;
mod faults;
mod harmless;
mod joining;
mod leaving;
mod looks;
mod notices;
mod once;
mod orders;
mod releases;
mod roads;
mod secrets;
mod stuck;
mod support;
mod sweep;
mod warned;
mod wedged;
