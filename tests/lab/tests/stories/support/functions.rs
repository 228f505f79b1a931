//! What stories do to a deployed function: kill it, and keep its queue from it.

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;
use spillway_lab::lab::Lab;

/// `kill -9` of a function's processes, and of nothing else.
pub fn kill(lab: &Lab, function: &str) {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={}-{function}", lab.spec.cluster);
    let endpoint = lab.cloud.proxy.url();
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment);
        let ours = environment.split('\0').any(|v| v == name) && environment.contains(&endpoint);
        if ours {
            let pid = entry.file_name().to_string_lossy().parse();
            let pid = Pid::from_raw(pid.expect("a function is listed by its pid"));
            killed += usize::from(signal::kill(pid, Signal::SIGKILL).is_ok());
        }
    }
    assert!(killed > 0, "no process of {function} was running");
}

/// The event source mapping by which a function reads its queue.
pub async fn mapping(lab: &Lab, function: &str) -> String {
    let root = lab.cloud.emulator.root();
    let path = format!(
        "/2015-03-31/event-source-mappings/?FunctionName={}-{function}",
        lab.spec.cluster
    );
    let answer = root
        .rest("lambda", http::Method::GET, &path, bytes::Bytes::new())
        .await
        .expect("Lambda answers");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    answer["EventSourceMappings"][0]["UUID"]
        .as_str()
        .expect("a mapping")
        .to_owned()
}

/// Has the function read its queue, or not.
pub async fn enable(lab: &Lab, mapping: &str, enabled: bool) {
    let root = lab.cloud.emulator.root();
    let path = format!("/2015-03-31/event-source-mappings/{mapping}");
    let body = json!({"Enabled": enabled}).to_string();
    root.rest("lambda", http::Method::PUT, &path, body.into())
        .await
        .expect("Lambda answers");
}
