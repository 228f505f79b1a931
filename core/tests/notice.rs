//! What AWS's events mean to us: every shape that is known, what is wrong with others, and texts by chance.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use spillway_core::envelope::MAX_REASON_CHARS;
use spillway_core::message::NodeNotice;
use spillway_core::name::InstanceId;
use spillway_core::notice::{Notice, Warning, WarningKind};

/// The sample events by name.
fn samples() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/notice");
    let files = fs::read_dir(directory).expect("the samples are there");
    let mut samples: Vec<(String, String)> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read_to_string(&path).expect("text"))
        })
        .collect();
    samples.sort();
    assert!(samples.len() > 20, "{}", samples.len());
    samples
}

fn sample(name: &str) -> Value {
    let samples = samples();
    let found = samples.iter().find(|(own, _)| own == name);
    let (_, text) = found.expect("the sample is there");
    serde_json::from_str(text).expect("JSON")
}

fn parse(event: &Value) -> Result<Notice, String> {
    Notice::parse(&event.to_string()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })
}

#[test]
fn every_sample_is_understood() {
    let mut table = String::new();
    for (name, text) in samples() {
        let notice = Notice::parse(&text).expect("a sample");
        let _ = writeln!(table, "{name}");
        if notice == Notice::default() {
            let _ = writeln!(table, "    nothing");
        }
        for Warning {
            kind,
            instance,
            until_ms,
            reason,
        } in notice.warnings
        {
            let _ = writeln!(table, "    {kind:?} {instance} {until_ms:?} {reason:?}");
        }
        if let Some(ends) = notice.reservation {
            let _ = writeln!(
                table,
                "    {} {:?} {:?}",
                ends.reservation_id, ends.until_ms, ends.reason
            );
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn what_is_wrong_is_said() {
    let without = |name: &str, pointer: &str, field: &str| {
        let mut event = sample(name);
        let object = event.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.expect("an object").remove(field);
        parse(&event).expect_err("malformed")
    };
    let with = |name: &str, pointer: &str, value: Value| {
        let mut event = sample(name);
        *event.pointer_mut(pointer).expect("the field") = value;
        parse(&event).expect_err("malformed")
    };
    let spot = "spot-interruption";
    let errors = [
        without(spot, "/detail", "instance-id"),
        without(spot, "", "detail"),
        without(spot, "", "source"),
        without(spot, "", "time"),
        with(spot, "/detail/instance-id", json!("i-1")),
        with(spot, "/time", json!("soon")),
        with(
            "health-scheduled-change",
            "/detail/startTime",
            json!("soon"),
        ),
        with(
            "bid-evicted",
            "/detail/serviceEventDetails/instanceIdSet/1",
            json!("mi-1"),
        ),
        with(
            "block-expiration",
            "/detail/capacity-reservation-id",
            json!("cr-*"),
        ),
        with("block-expiration", "/detail/end-date", json!("")),
        parse(&json!([1])).expect_err("malformed"),
    ];
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn what_may_be_missing_may_be_missing() {
    let mut event = sample("spot-interruption");
    let whole = parse(&event);
    for field in ["version", "id", "account", "region", "resources"] {
        event.as_object_mut().expect("an object").remove(field);
    }
    assert_eq!(parse(&event), whole);
    let mut event = sample("block-expiration");
    event["detail"]
        .as_object_mut()
        .expect("an object")
        .remove("end-date");
    let ends = parse(&event)
        .expect("a block")
        .reservation
        .expect("a reservation");
    assert_eq!(
        ends.until_ms,
        Some(1_767_225_600_000 + 600_000),
        "ten minutes after the warning"
    );
}

#[test]
fn reasons_are_bounded_and_on_one_line() {
    let mut event = sample("spot-interruption");
    event["detail"]["instance-action"] = json!("stop\n".repeat(1_000));
    let notice = parse(&event).expect("a warning");
    let reason = &notice.warnings[0].reason;
    assert_eq!(reason.chars().count(), MAX_REASON_CHARS);
    assert!(reason.chars().all(|c| !c.is_control()), "{reason}");
}

#[test]
fn an_instance_speaks_of_itself() {
    let said = |action: &str, until_ms| {
        Warning::of_node(&NodeNotice {
            instance_id: InstanceId::new("i-00000000000000001").expect("an id"),
            action: action.to_owned(),
            until_ms,
        })
    };
    let warning = said("terminate", Some(1_767_225_720_000));
    assert_eq!(warning.kind, WarningKind::Interruption);
    assert_eq!(
        warning.reason,
        "spillway: instance metadata announces: terminate at 2026-01-01T00:02:00Z"
    );
    assert_eq!(said("rebalance", None).kind, WarningKind::Rebalance);
}

/// A sample in which one value is another one, or is gone.
fn changed() -> impl Strategy<Value = String> {
    let events: Vec<Value> = samples()
        .iter()
        .map(|(_, text)| serde_json::from_str(text).expect("JSON"))
        .collect();
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "i-[0-9a-f]{17}".prop_map(Value::from),
        "[0-9]{1,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+][0-9]{2}:[0-9]{2})".prop_map(Value::from),
        "[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|[-][0-9]{4})".prop_map(Value::from),
        Just(json!([])),
        Just(json!({"a": [{}]})),
    ];
    (
        prop::sample::select(events),
        any::<prop::sample::Index>(),
        value,
    )
        .prop_map(|(mut event, at, value)| {
            let mut pointers = Vec::new();
            walk(&event, &mut String::new(), &mut pointers);
            let pointer = at.get(&pointers);
            if let Some(place) = event.pointer_mut(pointer) {
                *place = value;
            }
            event.to_string()
        })
}

fn walk(value: &Value, at: &mut String, pointers: &mut Vec<String>) {
    pointers.push(at.clone());
    let length = at.len();
    let mut step = |key: &str, inner: &Value| {
        let _ = write!(at, "/{}", key.replace('~', "~0").replace('/', "~1"));
        walk(inner, at, pointers);
        at.truncate(length);
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, inner)| step(key, inner)),
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                step(&index.to_string(), inner);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// No text panics, and whatever is understood is bounded.
    #[test]
    fn whatever_comes_is_read_or_refused(text in prop_oneof![changed(), ".{0,200}"]) {
        if let Ok(notice) = Notice::parse(&text) {
            for warning in notice.warnings {
                prop_assert!(warning.reason.starts_with("spillway: "));
                prop_assert!(warning.reason.chars().count() <= MAX_REASON_CHARS);
            }
        }
    }
}
