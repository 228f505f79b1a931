//! The SAM template as JSON: short forms such as `!Ref X` are written out as `{"Ref": "X"}`.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

/// The template, with short forms written out.
pub struct Template(Value);

impl Template {
    /// Reads `infra/sam/template.yaml`.
    pub fn read() -> Result<Self> {
        let path = crate::repository().join("infra/sam/template.yaml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(written_out(serde_yaml_ng::from_str(&text)?)?))
    }

    /// The value at a JSON pointer, null where there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Logical id and properties of every resource of a type.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = (&str, &Value)> {
        let found = self.0["Resources"].as_object().into_iter().flatten();
        found
            .filter(move |(_, resource)| resource["Type"] == kind)
            .map(|(id, resource)| (id.as_str(), &resource["Properties"]))
    }

    /// Logical id, event name and event of every event source of every function.
    pub fn events(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.of_type("AWS::Serverless::Function")
            .flat_map(|(id, function)| {
                let events = function["Events"].as_object().into_iter().flatten();
                events.map(move |(_, event)| (id, event))
            })
    }

    /// Every statement of the policies of a role or managed policy, also those under a condition.
    #[must_use]
    pub fn statements(&self, id: &str) -> Vec<&Value> {
        let properties = &self.0["Resources"][id]["Properties"];
        let inline = list(&properties["Policies"]).map(|policy| &policy["PolicyDocument"]);
        let own = [&properties["PolicyDocument"]];
        let documents = inline.chain(own);
        documents
            .flat_map(|document| list(&document["Statement"]))
            .map(|statement| match &statement["Fn::If"][1] {
                Value::Null => statement,
                conditional => conditional,
            })
            .collect()
    }
}

/// The logical id that `{"Ref": …}` or `{"Fn::GetAtt": […]}` names.
#[must_use]
pub fn target(value: &Value) -> Option<&str> {
    value["Ref"]
        .as_str()
        .or_else(|| value["Fn::GetAtt"][0].as_str())
}

/// The elements of a list; a value that is no list counts as a list of one, null as an empty one.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        Value::Null => [].iter(),
        single => std::slice::from_ref(single).iter(),
    }
}

fn written_out(yaml: Yaml) -> Result<Value> {
    Ok(match yaml {
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(written_out).collect::<Result<_>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let Yaml::String(key) = key else {
                    bail!("a key that is no string: {key:?}");
                };
                object.insert(key, written_out(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            intrinsic(tag.trim_start_matches('!'), written_out(tagged.value)?)
        }
        plain => serde_json::to_value(plain)?,
    })
}

fn intrinsic(name: &str, argument: Value) -> Value {
    match (name, argument) {
        ("Ref" | "Condition", argument) => json!({ name: argument }),
        ("GetAtt", Value::String(path)) => {
            let (id, attribute) = path.split_once('.').unwrap_or((&path, ""));
            json!({ "Fn::GetAtt": [id, attribute] })
        }
        (name, argument) => json!({ format!("Fn::{name}"): argument }),
    }
}
