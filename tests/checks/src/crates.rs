//! The graph of crates, as `cargo metadata` resolves it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The crates that a shipped program links.
const SHIPPED: [&str; 2] = ["", "build"];

/// The resolved crates of this workspace and everything they link.
pub struct Crates {
    /// Package id → its name.
    names: BTreeMap<String, String>,
    /// Package id → (id of a crate it takes, kind: "" for normal, "dev", "build").
    takes: BTreeMap<String, Vec<(String, String)>>,
    /// Package ids of the workspace's own crates.
    members: BTreeSet<String>,
    /// Programs that they build.
    programs: BTreeSet<String>,
}

impl Crates {
    /// Asks cargo.
    pub fn read() -> Result<Self> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1"])
            .current_dir(crate::repository())
            .output()
            .context("cargo metadata could not be started")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let names = each(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let takes = each(&metadata["resolve"]["nodes"])
            .map(|node| (text(&node["id"]), edges(node)))
            .collect();
        let members: BTreeSet<String> = each(&metadata["workspace_members"]).map(text).collect();
        let programs = each(&metadata["packages"])
            .filter(|package| members.contains(&text(&package["id"])))
            .flat_map(|package| each(&package["targets"]))
            .filter(|target| each(&target["kind"]).any(|kind| kind == "bin"))
            .map(|target| text(&target["name"]))
            .collect();
        Ok(Self {
            names,
            takes,
            members,
            programs,
        })
    }

    /// Names of the workspace's own crates.
    #[must_use]
    pub fn members(&self) -> BTreeSet<&str> {
        self.members.iter().map(|id| self.name(id)).collect()
    }

    /// Names of the programs that the workspace builds.
    #[must_use]
    pub fn programs(&self) -> &BTreeSet<String> {
        &self.programs
    }

    /// The workspace's crates that `name` takes itself: into what it ships, and for its tests only.
    #[must_use]
    pub fn imports(&self, name: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let own = |kinds: &'static [&'static str]| {
            self.takes[self.id(name)]
                .iter()
                .filter(|(id, kind)| self.members.contains(id) && kinds.contains(&kind.as_str()))
                .map(|(id, _)| self.name(id))
                .collect()
        };
        (own(&SHIPPED), own(&["dev"]))
    }

    /// Everything that ends up in what `name` ships, however far away.
    #[must_use]
    pub fn links(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next = vec![self.id(name)];
        while let Some(id) = next.pop() {
            for (taken, kind) in &self.takes[id] {
                if SHIPPED.contains(&kind.as_str()) && seen.insert(taken.as_str()) {
                    next.push(taken);
                }
            }
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }

    fn name(&self, id: &str) -> &str {
        &self.names[id]
    }

    fn id(&self, name: &str) -> &str {
        self.members
            .iter()
            .find(|id| self.name(id) == name)
            .unwrap_or_else(|| panic!("the workspace has no crate {name}"))
    }
}

fn edges(node: &Value) -> Vec<(String, String)> {
    each(&node["deps"])
        .flat_map(|dep| {
            each(&dep["dep_kinds"]).map(|kind| (text(&dep["pkg"]), text(&kind["kind"])))
        })
        .collect()
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The string, or "" for null: cargo writes the normal kind of dependency as null.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
