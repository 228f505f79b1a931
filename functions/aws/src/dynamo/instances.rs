//! Instance items: marks that are set whatever the pairing does.

use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_control::fault::Fault;
use spillway_control::record::{InstanceRecord, Origin};
use spillway_core::name::InstanceId;

use super::call::Expression;
use super::item::{map_value, number, read_instance, text};
use super::records::expires_at_s;
use super::{CALLS_AT_ONCE, DynamoTable};

impl DynamoTable {
    pub(super) async fn read_instances(
        &self,
        ids: &[InstanceId],
    ) -> Result<Vec<InstanceRecord>, Fault> {
        let keys = ids.iter().map(|id| self.home.instance_arn(id));
        self.get_all(keys)
            .await?
            .into_iter()
            .map(read_instance)
            .collect()
    }

    pub(super) async fn mark_released(
        &self,
        ids: &[InstanceId],
        origin: &Origin,
    ) -> Result<(), Fault> {
        let origin = map_value(origin)?;
        self.mark(ids, |id| Expression {
            update: Some(
                "SET #kind = :kind, instance_id = :id, #state = :released, \
                 origin = if_not_exists(origin, :origin)",
            ),
            condition: Some("attribute_not_exists(pk) OR #state = :released"),
            names: vec![("#kind", "kind"), ("#state", "state")],
            values: vec![
                (":kind", text("instance")),
                (":id", text(id.as_str())),
                (":released", text("released")),
                (":origin", origin.clone()),
            ],
        })
        .await
        .map(drop)
    }

    pub(super) async fn note_unknown_released(
        &self,
        ids: &[InstanceId],
        now_ms: u64,
    ) -> Result<(), Fault> {
        self.mark(ids, |_| Expression {
            update: Some("SET unknown_since_ms = if_not_exists(unknown_since_ms, :now)"),
            condition: Some("#state = :released"),
            names: vec![("#state", "state")],
            values: vec![(":released", text("released")), (":now", number(now_ms))],
        })
        .await
        .map(drop)
    }

    pub(super) async fn close_released(
        &self,
        ids: &[InstanceId],
    ) -> Result<Vec<InstanceId>, Fault> {
        let expires_at_s = expires_at_s();
        self.mark(ids, |_| Expression {
            update: Some("SET #state = :terminated, expires_at_s = :expires"),
            condition: Some("#state = :released"),
            names: vec![("#state", "state")],
            values: vec![
                (":released", text("released")),
                (":terminated", text("terminated")),
                (":expires", number(expires_at_s)),
            ],
        })
        .await
    }

    /// Makes the change to each item whose condition holds and answers which these are; the others are left as they
    /// are. A change whose answer was lost counts as not made.
    async fn mark(
        &self,
        ids: &[InstanceId],
        change: impl Fn(&InstanceId) -> Expression,
    ) -> Result<Vec<InstanceId>, Fault> {
        let calls: Vec<_> = ids
            .iter()
            .map(|id| {
                let call = self.update(self.home.instance_arn(id), change(id));
                async move { call.await.map(|changed| changed.then(|| id.clone())) }
            })
            .collect();
        let changed: Vec<Option<InstanceId>> = stream::iter(calls)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(changed.into_iter().flatten().collect())
    }
}
