//! The port to EC2, with what may go wrong on the way to the model and back.

use std::collections::BTreeMap;

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{Ec2, InstanceSeen, Terminated};
use spillway_control::record::LaunchAnswer;
use spillway_core::name::InstanceId;
use spillway_core::plan::LaunchCall;
use spillway_core::tag;

use super::{instance_ids, is_too_fast, refusal};
use crate::ec2;
use crate::sim::names::{Call, Trouble};
use crate::sim::port::{Port, fault};
use crate::sim::world::{Due, World};

/// A call that is not answered is given up by the SDK after this at the latest.
const PATIENCE_MS: u64 = 20_000;

impl Ec2 for Port {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        let way = self.way(Call::Launch);
        let limit_ms = limit_ms.min(PATIENCE_MS);
        if way.trouble == Some(Trouble::TimedOut) || way.there_ms > limit_ms {
            let late = Due::LateLaunch(Box::new(call.clone()));
            {
                let mut world = self.shared.lock();
                let after_ms = limit_ms + world.rng.u64(0..=4_000);
                world.after(after_ms, late);
            }
            self.pause(limit_ms).await;
            return Err(fault(Call::Launch, FaultKind::Transient, "Timeout"));
        }
        self.there(Call::Launch, way).await?;
        let mut answer = self.shared.lock().launch(call, way.trouble);
        if way.trouble == Some(Trouble::Repeated) {
            self.pause(way.there_ms).await;
            answer = self.shared.lock().launch(call, None);
        }
        self.back(Call::Launch, way).await?;
        answer
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        let filter = |key: &str| {
            let value = tags.get(key)?;
            Some(ec2::Filter::new(&format!("tag:{key}"), &[value]))
        };
        // The tag that tells most comes first: the others are then looked at for few instances.
        let keys = [tag::REQUEST]
            .into_iter()
            .chain(tags.keys().map(String::as_str));
        let request = ec2::DescribeInstances {
            filters: keys.filter_map(filter).collect(),
            ..ec2::DescribeInstances::default()
        };
        self.look(Call::Find, &request).await
    }

    async fn find_in_reservation(
        &self,
        reservation_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        let by_tags = tags
            .iter()
            .map(|(key, value)| ec2::Filter::new(&format!("tag:{key}"), &[value]));
        let by_reservation = ec2::Filter::new("capacity-reservation-id", &[reservation_id]);
        let request = ec2::DescribeInstances {
            filters: by_tags.chain([by_reservation]).collect(),
            ..ec2::DescribeInstances::default()
        };
        self.look(Call::Find, &request).await
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Terminated {
        let call = Call::Terminate;
        let way = self.way(call);
        let failed = |fault| Terminated {
            done: Vec::new(),
            unknown: Vec::new(),
            fault: Some(fault),
        };
        if let Err(fault) = self.there(call, way).await {
            return failed(fault);
        }
        let partial = way.trouble == Some(Trouble::Partial);
        let now = if partial { &ids[..ids.len() / 2] } else { ids };
        let mut answer = self.shared.lock().terminate(now);
        if way.trouble == Some(Trouble::Repeated) {
            self.shared.lock().terminate(now);
        }
        if let Err(fault) = self.back(call, way).await {
            return failed(fault);
        }
        if partial {
            let throttled = || fault(call, FaultKind::Throttled, "RequestLimitExceeded");
            answer.fault.get_or_insert_with(throttled);
        }
        answer
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        let impaired = ec2::Filter::new("instance-status.status", &["impaired"]);
        let request = ec2::DescribeInstanceStatus {
            filters: vec![impaired],
            ..ec2::DescribeInstanceStatus::default()
        };
        let effect = |world: &mut World, _| {
            let answer = world
                .cloud
                .ec2
                .describe_instance_status(world.now_ms, &request);
            let answer = answer.map_err(|error| refusal(Call::Impaired, &error));
            let asked = &mut world.cloud.asked;
            asked.note(answer.as_ref().is_err_and(is_too_fast));
            let (rows, _) = answer?;
            let ids = rows.into_iter().map(|row| row.instance.instance_id);
            Ok(instance_ids(ids))
        };
        self.call(Call::Impaired, effect).await?
    }

    async fn console(&self, id: &InstanceId) -> Result<String, Fault> {
        let effect = |world: &mut World, _| {
            let answer = world
                .cloud
                .ec2
                .get_console_output(world.now_ms, id.as_str());
            let answer = answer.map_err(|error| refusal(Call::Console, &error));
            let asked = &mut world.cloud.asked;
            asked.note(answer.as_ref().is_err_and(is_too_fast));
            answer.map(|console| console.output)
        };
        self.call(Call::Console, effect).await?
    }

    async fn tag(&self, ids: &[InstanceId], tags: &BTreeMap<String, String>) -> Result<(), Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let effect = |world: &mut World, _| {
            let answer = world.cloud.ec2.create_tags(world.now_ms, &ids, tags, false);
            world.cloud_moved(None);
            let answer = answer.map_err(|error| refusal(Call::Tag, &error));
            world
                .cloud
                .asked
                .note(answer.as_ref().is_err_and(is_too_fast));
            answer
        };
        self.call(Call::Tag, effect).await?
    }
}

impl Port {
    async fn look(
        &self,
        call: Call,
        request: &ec2::DescribeInstances,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        let way = self.way(call);
        self.there(call, way).await?;
        let answer = {
            let mut world = self.shared.lock();
            let mut answer = world.describe(request);
            if let (Ok(seen), Some(Trouble::Incomplete)) = (&mut answer, way.trouble) {
                world.forget_some(seen);
            }
            answer
        };
        self.back(call, way).await?;
        answer
    }
}
