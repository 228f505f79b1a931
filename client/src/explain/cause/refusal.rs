//! Nodes for which nothing was launched: whose limit it was, and what would help.

use spillway_core::gang::NOT_ASKED_FOR;
use spillway_core::pairing::Step;
use spillway_core::plan::Recipe;
use spillway_core::usage::OVER_LIMIT;

use super::{Kind, Verdict};
use crate::explain::facts::NodeFacts;
use crate::explain::{ago, plain};
use crate::local_time;

/// AWS's codes of what is a matter of rights.
const DENIED: [&str; 3] = ["UnauthorizedOperation", "AccessDenied", "NotAuthorized"];
/// AWS's codes of what the account may not have more of.
const QUOTA: [&str; 4] = [
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "MaxSpotFleetRequestCountExceeded",
];
/// AWS's codes of what there is none of (EC2 API, error codes).
const CAPACITY: [&str; 8] = [
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
];

/// Why the last launch brought nothing.
pub fn verdict(facts: &NodeFacts, last: &Step, reason: &str) -> Verdict {
    let has = |codes: &[&str]| codes.iter().any(|code| reason.contains(code));
    let when = ago(last.at_ms, facts.site.now_ms);
    let make = |kind, what: String, advice: String| super::verdict(kind, false, what, advice);
    if let Some(limit) = reason.strip_prefix(plain(OVER_LIMIT)) {
        return make(
            Kind::OverCap,
            format!("was refused {when}: it would have gone over the site's limit of {limit}."),
            "Wait until other burst nodes are let go, or raise the limit in spillway.toml and run `spillway config push`."
                .to_owned(),
        );
    }
    if reason.contains("spillway config push") {
        return make(
            Kind::Refused,
            format!("was refused {when}: {reason}."),
            "Run `spillway config check`, then `spillway config push`.".to_owned(),
        );
    }
    if has(&DENIED) {
        return make(
            Kind::Refused,
            format!("got no instance {when}, because the stack lacks a right in AWS: {reason}."),
            "Give the launch function that right, or take away what forbids it (a service control policy, a key of another \
             account for the image's disk)."
                .to_owned(),
        );
    }
    if has(&QUOTA) {
        return make(
            Kind::NoCapacity,
            format!(
                "got no instance {when}, because the AWS account has reached a quota: {reason}."
            ),
            format!(
                "Ask AWS for a higher quota (Service Quotas, EC2).{}",
                again(facts)
            ),
        );
    }
    if has(&CAPACITY) {
        return make(
            Kind::NoCapacity,
            format!(
                "got no instance {when}, because EC2 had not enough of what its node group may use."
            ),
            format!(
                "{} More instance types, zones or capacity kinds for the node group in spillway.toml make that rarer.",
                again(facts).trim_start()
            ),
        );
    }
    if reason.contains(NOT_ASKED_FOR) {
        return make(
            Kind::Refused,
            format!("was given up {when}: {reason}, and the job needs all of them at once."),
            "Slurm asks for a job's nodes within seconds, so many a minute as ResumeRate in slurm.conf allows: look there, and in \
             slurmctld's log for the other nodes. The node is tried again with the next job."
                .to_owned(),
        );
    }
    make(
        Kind::Refused,
        format!("got no instance {when}: {reason}."),
        "If the reason does not tell you enough, look at the launch function's log for the request below. The node is tried again \
         with the next job."
            .to_owned(),
    )
}

/// When EC2 is asked again.
fn again(facts: &NodeFacts) -> String {
    let until_ms = rests_until_ms(facts).filter(|until_ms| *until_ms > facts.site.now_ms);
    match until_ms {
        Some(until_ms) => {
            let left = local_time::duration(until_ms - facts.site.now_ms);
            format!(
                " EC2 is asked again in {left}; until then Slurm is not offered these nodes, and jobs wait in its queue."
            )
        }
        None => " EC2 is asked again with the next job.".to_owned(),
    }
}

/// Until when all that the node's group may use is left alone.
fn rests_until_ms(facts: &NodeFacts) -> Option<u64> {
    let capacity = facts.capacity.as_ref().ok()?.as_ref()?;
    let plan = facts.request.as_ref().ok()?.as_ref()?.plan.as_ref()?;
    let recipes: &Vec<Recipe> = plan.recipes.get(facts.node_group.as_ref()?)?;
    capacity.rests_until_ms(recipes, facts.site.now_ms)
}
