//! Who may do what: every principal of the template makes its calls, with its own credentials, through the proxy.
//!
//! The table is in `table.rs`. A call that must be refused stands beside one that differs in one thing and must
//! pass, so that a malformed call does not count as a refusal.

mod calls;
mod principals;
mod requests;
mod setting;
mod table;

use std::collections::BTreeSet;

use serde_json::json;
use spillway_lab::authorize::scope;
use spillway_lab::journal::Authorization;
use spillway_lab::lab::{Lab, LabSpec};
use spillway_world::ec2::InstanceState;

use calls::{Asked, Outcome, carry_out};
use principals::{Principal, credentials};
use setting::Setting;
use table::{Expected, Row};

/// Rows that issue 3 asks for at least.
const ROWS_MIN: usize = 40;

/// What AWS's services call a refusal by policy.
const REFUSALS: [&str; 3] = [
    "UnauthorizedOperation",
    "AccessDenied",
    "AccessDeniedException",
];

/// What they call a caller that they do not know, or whose signature is wrong.
const UNKNOWN_CALLERS: [&str; 5] = [
    "AuthFailure",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
];

#[tokio::test]
async fn every_principal_can_do_what_it_must_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let spec = LabSpec::new(state.path()).unwrap();
    let lab = Lab::start(spec, |line| println!("{line}")).await.unwrap();
    let setting = Setting::make(&lab).await;
    let rows = table::rows(&setting);
    check_table(&rows);

    // Every row's call, and every call that shows that a refused one was well formed; each once.
    let mut asked: Vec<Asked> = Vec::new();
    for row in &rows {
        for one in std::iter::once(&row.asked).chain(row.counterpart()) {
            if !asked.contains(one) {
                asked.push(one.clone());
            }
        }
    }
    let who = credentials(&lab, &setting).await;
    let outcomes = carry_out(&lab, &who, &asked).await;
    let outcome = |one: &Asked| -> &Outcome {
        let at = asked.iter().position(|other| other == one);
        &outcomes[at.expect("it was asked")]
    };

    let wrong: Vec<String> = rows.iter().filter_map(|row| judge(row, &outcome)).collect();
    for row in &rows {
        println!(
            "{:12} {}: {}",
            row.asked.who.name(),
            row.what,
            row.expected.word()
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    others_are_untouched(&lab, &setting);
    the_proxy_decided_on_what_is_left_to_it(&lab);
    lab.stop().await;
}

/// What is wrong with a row.
fn judge<'a>(row: &Row, outcome: &impl Fn(&Asked) -> &'a Outcome) -> Option<String> {
    let found = outcome(&row.asked);
    let is_as_expected = match &row.expected {
        Expected::Allowed => found.is_none(),
        Expected::Refused { lacks, .. } => found.as_ref().is_some_and(|refusal| {
            REFUSALS.contains(&refusal.code.as_str())
                && refusal
                    .message
                    .to_lowercase()
                    .contains(&lacks.to_lowercase())
        }),
        Expected::UnknownCaller { .. } => found
            .as_ref()
            .is_some_and(|refusal| UNKNOWN_CALLERS.contains(&refusal.code.as_str())),
    };
    let who = row.asked.who.name();
    if !is_as_expected {
        return Some(format!("{who}: {}: {found:?}", row.what));
    }
    let counterpart = row.counterpart()?;
    let found = outcome(counterpart);
    found.as_ref().map(|refusal| {
        format!(
            "{who}: {}: what differs in one thing must pass, but {refusal:?}",
            row.what
        )
    })
}

/// It is long enough, and says of everyone both what it may and what it may not.
fn check_table(rows: &[Row]) {
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let of = |is_allowed: bool| -> BTreeSet<&str> {
        let rows = rows.iter();
        rows.filter(|row| matches!(row.expected, Expected::Allowed) == is_allowed)
            .map(|row| row.asked.who.name())
            .collect()
    };
    let (allowed, refused) = (of(true), of(false));
    for who in Principal::OF_THE_TEMPLATE {
        assert!(
            allowed.contains(who.name()),
            "{} may do something",
            who.name()
        );
        assert!(
            refused.contains(who.name()),
            "{} may not do everything",
            who.name()
        );
    }
    assert!(refused.contains(Principal::Stranger.name()));
    let distinct: BTreeSet<_> = rows
        .iter()
        .map(|row| (row.asked.who.name(), row.what))
        .collect();
    assert_eq!(distinct.len(), rows.len(), "a row stands twice");
}

/// What was refused was not done either.
fn others_are_untouched(lab: &Lab, setting: &Setting) {
    for (id, cluster) in [(&setting.theirs, Some("other")), (&setting.stray, None)] {
        let (state, tag) = lab.ec2.with(|ec2, _| {
            let instance = ec2.instance(id).unwrap();
            (
                instance.state,
                instance.tags.get("spillway:cluster").cloned(),
            )
        });
        assert!(
            matches!(state, InstanceState::Pending | InstanceState::Running),
            "{id}: {state:?}"
        );
        assert_eq!(tag.as_deref(), cluster, "{id}");
    }
}

/// The journal has the proxy's decisions on what is on its list and on nothing else, and there was nothing that the
/// lab could not judge.
fn the_proxy_decided_on_what_is_left_to_it(lab: &Lab) {
    let calls = lab.cloud.proxy.journal().calls().unwrap();
    let (mut allowed, mut refused) = (0, 0);
    for call in &calls {
        let left = scope::find(&call.service, &call.operation);
        match &call.authorization {
            None => {}
            Some(Authorization::Unknown) => panic!("{call:?}"),
            Some(Authorization::Allowed) => allowed += 1,
            Some(Authorization::Refused { .. } | Authorization::Unsigned) => {
                refused += 1;
                assert!(call.status >= 400 && call.error_code.is_some(), "{call:?}");
            }
        }
        assert_eq!(left.is_some(), call.authorization.is_some(), "{call:?}");
    }
    println!(
        "{}",
        json!({"allowed by the proxy": allowed, "refused by it": refused})
    );
    assert!(allowed > 0 && refused > 0);
}
