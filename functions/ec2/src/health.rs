//! What EC2 says of instances that do not do well: its status checks, and the console.

use aws_sdk_ec2::types::Filter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spillway_control::fault::Fault;
use spillway_core::name::InstanceId;

use crate::{Ec2Client, classify};

/// The most a page holds (`DescribeInstanceStatus`, `MaxResults`).
const PAGE_SIZE: i32 = 1000;

impl Ec2Client {
    /// Status checks have no tags to ask by; few instances of an account fail one at a time.
    pub(crate) async fn failing_checks(&self) -> Result<Vec<InstanceId>, Fault> {
        let mut failing = Vec::new();
        for check in ["instance-status.status", "system-status.status"] {
            let impaired = Filter::builder().name(check).values("impaired").build();
            let call = self
                .client
                .describe_instance_status()
                .filters(impaired)
                .max_results(PAGE_SIZE);
            let mut pages = call.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page =
                    page.map_err(|error| classify::fault("DescribeInstanceStatus", &error))?;
                let statuses = page.instance_statuses.unwrap_or_default();
                let ids = statuses.into_iter().filter_map(|status| status.instance_id);
                failing.extend(ids.filter_map(|id| InstanceId::new(id).ok()));
            }
        }
        Ok(failing)
    }

    /// EC2 keeps the last 64 KB of an instance's console, also of one that was just terminated.
    pub(crate) async fn console_of(&self, id: &InstanceId) -> Result<String, Fault> {
        let answer = self
            .client
            .get_console_output()
            .instance_id(id.as_str())
            .send()
            .await
            .map_err(|error| classify::fault("GetConsoleOutput", &error))?;
        let encoded = answer.output.unwrap_or_default();
        let bytes = STANDARD.decode(encoded.trim()).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
