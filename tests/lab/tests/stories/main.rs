//! Stories: what a site may live through, on a whole lab. Each test has a lab of its own.

mod agent;
mod by_hand;
mod capacity;
mod caps;
mod churn;
mod explain;
mod faults;
mod joining;
mod leaving;
mod looks;
mod notices;
mod once;
mod orders;
mod releases;
mod roads;
mod secrets;
mod support;
mod sweep;
mod wedged;
