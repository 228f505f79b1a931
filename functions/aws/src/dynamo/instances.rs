//! Instance items: marks that are set whatever the pairing does.

use aws_sdk_dynamodb::types::AttributeValue;
use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_control::fault::Fault;
use spillway_control::record::{HeldBy, InstanceRecord, Origin};
use spillway_core::name::InstanceId;
use spillway_core::plan::InstanceState;

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

    /// Whoever pairs it meanwhile changes its generation or its state, and keeps it.
    pub(super) async fn mark_orphan(
        &self,
        id: &InstanceId,
        seen: Option<&InstanceRecord>,
    ) -> Result<bool, Fault> {
        let mut names = vec![("#kind", "kind"), ("#state", "state")];
        let mut values = vec![
            (":kind", text("instance")),
            (":id", text(id.as_str())),
            (":released", text("released")),
        ];
        let condition = match seen {
            None => "attribute_not_exists(pk)",
            Some(seen) => {
                values.push((":state", state_value(seen.state)));
                match seen.generation {
                    None => "#state = :state AND attribute_not_exists(generation)",
                    Some(generation) => {
                        names.push(("#generation", "generation"));
                        values.push((":generation", number(generation.get())));
                        "#state = :state AND #generation = :generation"
                    }
                }
            }
        };
        let marked = self.mark(std::slice::from_ref(id), |_| Expression {
            update: Some(
                "SET #kind = :kind, instance_id = :id, #state = :released REMOVE unknown_since_ms",
            ),
            condition: Some(condition),
            names: names.clone(),
            values: values.clone(),
        });
        Ok(!marked.await?.is_empty())
    }

    /// An instance that is held before anything is known of it serves nobody: its item says released.
    pub(super) async fn mark_held(
        &self,
        ids: &[InstanceId],
        held: Option<HeldBy>,
    ) -> Result<(), Fault> {
        let mut values = vec![(":kind", text("instance")), (":released", text("released"))];
        let update = match held {
            Some(by) => {
                values.push((":held", text(held_value(by))));
                "SET #kind = :kind, instance_id = :id, held = :held, \
                 #state = if_not_exists(#state, :released)"
            }
            None => {
                "SET #kind = :kind, instance_id = :id, \
                 #state = if_not_exists(#state, :released) REMOVE held"
            }
        };
        self.mark(ids, |id| Expression {
            update: Some(update),
            condition: None,
            names: vec![("#kind", "kind"), ("#state", "state")],
            values: values
                .iter()
                .cloned()
                .chain([(":id", text(id.as_str()))])
                .collect(),
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

fn held_value(by: HeldBy) -> &'static str {
    match by {
        HeldBy::Tag => "tag",
        HeldBy::Operator => "operator",
    }
}

fn state_value(state: InstanceState) -> AttributeValue {
    text(match state {
        InstanceState::Paired => "paired",
        InstanceState::Released => "released",
        InstanceState::Terminated => "terminated",
    })
}
