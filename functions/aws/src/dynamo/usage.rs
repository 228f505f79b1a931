//! What launches hold of the caps: one item.

use spillway_control::fault::Fault;
use spillway_control::record::Stored;
use spillway_core::usage::Usage;

use super::DynamoTable;
use super::item::{malformed, number, read_json, read_number};
use super::records::{record_item, version_is};

/// The largest record: DynamoDB's 400 KB less room for the other attributes. It takes the most launches that
/// `spillway_core::usage` lets it hold.
const MAX_USAGE_BYTES: usize = 405_000;

impl DynamoTable {
    pub(super) async fn read_usage(&self) -> Result<Stored<Usage>, Fault> {
        let Some(item) = self.get(self.usage_key()).await? else {
            return Ok(Stored {
                record: Usage::default(),
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

    pub(super) async fn write_usage(
        &self,
        usage: &Usage,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        let mut item = record_item(self.usage_key(), "usage", usage, MAX_USAGE_BYTES)?;
        item.insert("version".to_owned(), number(expected_version + 1));
        // For people: the record itself is compact.
        item.insert("nodes".to_owned(), number(u64::from(usage.nodes())));
        item.insert("vcpus".to_owned(), number(usage.vcpus()));
        self.put(item, version_is(expected_version)).await
    }
}
