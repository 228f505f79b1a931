//! The JSON Schemas of what the queues carry and of what is published, held to the types. `UPDATE_SCHEMAS=1` writes them anew.

use std::path::Path;

use schemars::{JsonSchema, Schema, schema_for};
use spillway_core::envelope::Envelope;
use spillway_core::message::{
    Message, ReportBody, ResumeQueueBody, SuspendQueueBody, SweepQueueBody,
};
use spillway_core::site_event::Detail;

fn check<T: JsonSchema>(queue: &str) {
    check_file(&format!("{queue}-queue"), &schema_for!(Message<T>));
}

fn check_file(name: &str, schema: &Schema) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../events/schemas/{name}.schema.json"));
    let schema = serde_json::to_string_pretty(schema).expect("a schema is JSON") + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &schema).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "{} is out of date: run the test with UPDATE_SCHEMAS=1",
        path.display()
    );
}

#[test]
fn schema_of_the_resume_queue() {
    check::<ResumeQueueBody>("resume");
}

#[test]
fn schema_of_the_suspend_queue() {
    check::<SuspendQueueBody>("suspend");
}

#[test]
fn schema_of_the_reports_queue() {
    check::<ReportBody>("reports");
}

#[test]
fn schema_of_the_updates_queue() {
    check::<Envelope>("updates");
}

#[test]
fn schema_of_the_sweep_queue() {
    check::<SweepQueueBody>("sweep");
}

#[test]
fn schema_of_the_detail_of_published_events() {
    check_file("site-event-detail", &schema_for!(Detail));
}
