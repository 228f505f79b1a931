//! `spillway config push`: the policy into the table, as the next version, with the operator's credentials.

use std::fmt::Write as _;

use anyhow::Context as _;
use aws_sdk_dynamodb::config::ProvideCredentials as _;
use spillway_core::config::{NodeGroup, Policy, Site};

use super::{EXIT_OK, operator, output, runtime};
use crate::aws::dynamodb::{StoredPolicy, Table};

/// Puts the site's policy in force and prints what changes.
pub fn run(site: &Site, table: Option<String>) -> anyhow::Result<u8> {
    let answer = runtime()?.block_on(push(site, table))?;
    output::print_line(&answer)?;
    Ok(EXIT_OK)
}

async fn push(site: &Site, table: Option<String>) -> anyhow::Result<String> {
    let policy = &site.policy;
    let sdk = operator::sdk(&site.client).await?;
    let own = &site.client.aws.table;
    let table = Table::new(
        aws_sdk_dynamodb::Client::new(&sdk),
        table.as_ref().unwrap_or(own),
    );
    let hint =
        "cannot push the policy: are these operator credentials for this account and region?";
    let stored = table.policy(&policy.cluster).await.context(hint)?;
    if let Some(stored) = &stored
        && stored.policy == *policy
    {
        return Ok(format!(
            "policy of {} unchanged: version {} stays in force in {}",
            policy.cluster,
            stored.version,
            table.name()
        ));
    }
    let pushed_by = access_key_of(&sdk).await;
    let replaced = stored.as_ref().map(|stored| stored.version);
    let version = table
        .push_policy(policy, replaced, &pushed_by)
        .await
        .context(hint)?;
    let changes = changes(stored.as_ref(), policy);
    Ok(format!(
        "policy of {}, version {version}, is in force in {}\n{changes}",
        policy.cluster,
        table.name()
    ))
}

/// The access key id that signs: with `CloudTrail` it tells who it was.
async fn access_key_of(sdk: &aws_config::SdkConfig) -> String {
    let Some(provider) = sdk.credentials_provider() else {
        return "unknown".to_owned();
    };
    match provider.provide_credentials().await {
        Ok(credentials) => credentials.access_key_id().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// What a push changes, group by group, for a person.
fn changes(stored: Option<&StoredPolicy>, policy: &Policy) -> String {
    let mut text = String::new();
    let groups = || policy.node_groups.iter();
    for group in groups() {
        let before = stored.and_then(|stored| stored.policy.node_groups.get(&group.name));
        let line = match before {
            None => format!("  + {}: {}", group.name, describe(group)),
            Some(before) if before == group => continue,
            Some(before) if describe(before) == describe(group) => {
                format!("  ~ {}: {}, details changed", group.name, describe(group))
            }
            Some(before) => format!(
                "  ~ {}: {}; before: {}",
                group.name,
                describe(group),
                describe(before)
            ),
        };
        let _ = writeln!(text, "{line}");
    }
    for before in stored
        .iter()
        .flat_map(|stored| stored.policy.node_groups.iter())
    {
        if policy.node_groups.get(&before.name).is_none() {
            let _ = writeln!(text, "  - {}: {}", before.name, describe(before));
        }
    }
    let vcpus = policy
        .limits
        .max_vcpus
        .map_or_else(String::new, |most| format!(", {most} vCPUs"));
    let _ = write!(
        text,
        "  {} node groups, {} nodes, at most {} at once{} and {} launches an hour, {} of one node",
        groups().len(),
        policy.node_groups.node_count(),
        policy.limits.max_nodes,
        vcpus,
        policy.limits.launches_per_hour,
        policy.limits.launches_per_hour_per_node
    );
    text
}

fn describe(group: &NodeGroup) -> String {
    let types: Vec<_> = group
        .instance_types
        .iter()
        .map(spillway_core::name::InstanceType::as_str)
        .collect();
    let capacity: Vec<_> = group.capacity.iter().map(|kind| kind.as_str()).collect();
    format!(
        "{} nodes (at most {} at once), {} as {}, template {} version {}",
        group.nodes.len(),
        group.max_nodes,
        types.join(" or "),
        capacity.join(", then "),
        group.launch_template_id,
        group.launch_template_version
    )
}
