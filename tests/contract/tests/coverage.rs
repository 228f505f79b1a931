//! No method of a port is without a test that says what it promises.

use std::path::Path;

use spillway_contract::suites::covered::COVERED;

const PORTS: &str = include_str!("../../../functions/control/src/ports.rs");

/// `Trait::method`, in the order of the file: what rustfmt makes of a trait is enough to read it by.
fn methods(source: &str) -> Vec<String> {
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut methods = Vec::new();
    let mut port = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub trait ") {
            port = Some(name(rest));
        } else if line == "}" {
            port = None;
        } else if let (Some(port), Some(rest)) = (&port, line.strip_prefix("    fn ")) {
            methods.push(format!("{port}::{}", name(rest)));
        }
    }
    methods
}

#[test]
fn every_method_of_a_port_is_covered() {
    let methods = methods(PORTS);
    assert!(
        methods.contains(&"Table::put_shared".to_owned()),
        "{methods:?}"
    );
    let covered: Vec<&str> = COVERED.iter().map(|(method, ..)| *method).collect();
    assert_eq!(methods, covered);
}

#[test]
fn what_covers_a_method_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (method, file, test) in COVERED {
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        let calls = ["(", "<"].map(|after| format!("fn {test}{after}"));
        let is_there = calls.iter().any(|call| source.contains(call));
        assert!(is_there, "{method}: no {test} in {file}");
        let method = method.rsplit(':').next().unwrap();
        // A suite's own file calls the method: the lab's stories reach it through the functions.
        let calls = [format!(".{method}("), format!(".{method}::<")];
        let is_story = file.starts_with("tests/lab/");
        assert!(
            is_story || calls.iter().any(|call| source.contains(call)),
            "{method} in {file}"
        );
    }
}
