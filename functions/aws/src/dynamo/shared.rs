//! Records that many write: one item each.

use spillway_control::fault::Fault;
use spillway_control::record::Stored;
use spillway_control::shared::Shared;

use super::DynamoTable;
use super::item::{malformed, number, read_json, read_number};
use super::records::{expires_at_s, record_item, version_is};

/// The largest record: DynamoDB's 400 KB less room for the other attributes. It takes the most launches that
/// `spillway_core::usage` lets it hold.
const MAX_SHARED_BYTES: usize = 405_000;

impl DynamoTable {
    pub(super) async fn read_shared<S: Shared>(&self, name: &str) -> Result<Stored<S>, Fault> {
        let Some(item) = self.get(self.shared_key(S::KIND, name)).await? else {
            return Ok(Stored {
                record: S::default(),
                version: 0,
            });
        };
        let version = read_number(&item, "version")
            .ok_or_else(|| malformed(&item, "it has no number version"))?;
        Ok(Stored {
            record: read_json(&item, "record")?,
            version,
        })
    }

    pub(super) async fn write_shared<S: Shared>(
        &self,
        name: &str,
        record: &S,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        let key = self.shared_key(S::KIND, name);
        let mut item = record_item(key, S::KIND, record, MAX_SHARED_BYTES)?;
        item.insert("version".to_owned(), number(expected_version + 1));
        for (figure, value) in record.figures() {
            item.insert(figure.to_owned(), number(value));
        }
        if S::EXPIRES {
            item.insert("expires_at_s".to_owned(), number(expires_at_s()));
        }
        self.put(item, version_is(expected_version)).await
    }

    /// `USAGE#cluster`, `GANG#cluster#4711`.
    fn shared_key(&self, kind: &str, name: &str) -> String {
        let kind = kind.to_uppercase();
        if name.is_empty() {
            format!("{kind}#{}", self.cluster)
        } else {
            format!("{kind}#{}#{name}", self.cluster)
        }
    }
}
