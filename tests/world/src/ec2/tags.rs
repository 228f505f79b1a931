//! Tags: `CreateTags`, `DeleteTags`, `DescribeTags` and AWS's rules for them.

use super::error::{Ec2Error, Ec2Result};
use super::request::{Filter, Page, Tags};
use super::{Ec2, filter, page};

/// The most tags of one resource, AWS's own (`aws:`) not counted.
const TAGS_MAX: usize = 50;
/// The longest key and value, in characters.
const KEY_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;
/// The most resources of one `CreateTags` or `DeleteTags` (API reference).
const RESOURCES_MAX: usize = 1000;
/// The prefix AWS keeps for itself.
const RESERVED_PREFIX: &str = "aws:";

/// One row of `DescribeTags`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagDescription {
    /// Id of what bears the tag.
    pub resource_id: String,
    /// `instance`, `volume`, `network-interface` or `fleet`.
    pub resource_type: &'static str,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// `DescribeTags`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeTags {
    /// Filters: `resource-id`, `resource-type`, `key`, `value`, `tag:KEY`.
    pub filters: Vec<Filter>,
    /// Paging.
    pub page: Page,
}

/// Refuses tags that AWS would refuse from a caller.
pub(super) fn check_tags(tags: &Tags) -> Ec2Result<()> {
    for (key, value) in tags {
        if key.starts_with(RESERVED_PREFIX) {
            return Err(Ec2Error::invalid_value(format!(
                "Tag keys starting with '{RESERVED_PREFIX}' are reserved for internal use"
            )));
        }
        if key.is_empty() || key.chars().count() > KEY_LENGTH_MAX {
            return Err(Ec2Error::invalid_value(format!(
                "Tag key '{key}' must have 1 to {KEY_LENGTH_MAX} characters"
            )));
        }
        if value.chars().count() > VALUE_LENGTH_MAX {
            return Err(Ec2Error::invalid_value(format!(
                "Tag value exceeds the maximum length of {VALUE_LENGTH_MAX} characters"
            )));
        }
    }
    check_count(tags)
}

fn check_count(tags: &Tags) -> Ec2Result<()> {
    if tags
        .keys()
        .filter(|key| !key.starts_with(RESERVED_PREFIX))
        .count()
        > TAGS_MAX
    {
        return Err(Ec2Error::client(
            "TagLimitExceeded",
            format!("The maximum number of tags is {TAGS_MAX}."),
        ));
    }
    Ok(())
}

impl Ec2 {
    /// `CreateTags`: adds tags or replaces their values, on all the resources or on none.
    pub fn create_tags(
        &mut self,
        now_ms: u64,
        resource_ids: &[String],
        tags: &Tags,
        dry_run: bool,
    ) -> Ec2Result<()> {
        self.begin("CreateTags", now_ms)?;
        if tags.is_empty() {
            return Err(Ec2Error::missing("Tag"));
        }
        check_tags(tags)?;
        self.require_resources(now_ms, resource_ids)?;
        for id in resource_ids {
            let mut merged = self.tags_of(id).cloned().unwrap_or_default();
            merged.extend(tags.clone());
            check_count(&merged)?;
        }
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        for id in resource_ids {
            if let Some(own) = self.tags_of_mut(id) {
                own.extend(tags.clone());
            }
        }
        Ok(())
    }

    /// `DeleteTags`: removes the keys, or only where the value is the one given. No keys means all tags but
    /// AWS's own.
    pub fn delete_tags(
        &mut self,
        now_ms: u64,
        resource_ids: &[String],
        tags: &[(String, Option<String>)],
        dry_run: bool,
    ) -> Ec2Result<()> {
        self.begin("DeleteTags", now_ms)?;
        self.require_resources(now_ms, resource_ids)?;
        if tags.iter().any(|(key, _)| key.starts_with(RESERVED_PREFIX)) {
            return Err(Ec2Error::invalid_value(format!(
                "Tag keys starting with '{RESERVED_PREFIX}' are reserved for internal use"
            )));
        }
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        for id in resource_ids {
            let Some(own) = self.tags_of_mut(id) else {
                continue;
            };
            own.retain(|key, value| {
                let named = tags
                    .iter()
                    .any(|(k, v)| k == key && v.as_ref().is_none_or(|v| v == value));
                key.starts_with(RESERVED_PREFIX) || !(tags.is_empty() || named)
            });
        }
        Ok(())
    }

    /// `DescribeTags`: of instances, their volumes and interfaces, and fleets.
    pub fn describe_tags(
        &mut self,
        now_ms: u64,
        request: &DescribeTags,
    ) -> Ec2Result<(Vec<TagDescription>, Option<String>)> {
        let plain = request.filters.is_empty() && request.page.is_unpaged();
        self.begin_describe("DescribeTags", now_ms, plain)?;
        filter::check(
            &request.filters,
            &["resource-id", "resource-type", "key", "value", "tag"],
        )?;
        let mut rows = Vec::new();
        let mut add = |resource_id: &str, resource_type: &'static str, tags: &Tags| {
            rows.extend(tags.iter().map(|(key, value)| TagDescription {
                resource_id: resource_id.to_owned(),
                resource_type,
                key: key.clone(),
                value: value.clone(),
            }));
        };
        for instance in self
            .instances
            .values()
            .filter(|i| self.is_visible(i, now_ms))
        {
            add(&instance.instance_id, "instance", &instance.tags);
            add(&instance.volume_id, "volume", &instance.volume_tags);
            add(
                &instance.network_interface_id,
                "network-interface",
                &instance.network_interface_tags,
            );
        }
        for (fleet_id, tags) in &self.fleets {
            add(fleet_id, "fleet", tags);
        }
        rows.retain(|row| {
            filter::all_match(&request.filters, |name| match name {
                "resource-id" => vec![row.resource_id.clone()],
                "resource-type" => vec![row.resource_type.to_owned()],
                "key" | "tag-key" => vec![row.key.clone()],
                "value" | "tag-value" => vec![row.value.clone()],
                other => {
                    filter::tag_values(other, &Tags::from([(row.key.clone(), row.value.clone())]))
                }
            })
        });
        page::cut(rows, &request.page, 5..=1000, |row| {
            format!("{}\u{0}{}", row.resource_id, row.key)
        })
    }

    fn require_resources(&self, now_ms: u64, ids: &[String]) -> Ec2Result<()> {
        if ids.is_empty() {
            return Err(Ec2Error::missing("ResourceId"));
        }
        if ids.len() > RESOURCES_MAX {
            return Err(Ec2Error::invalid_value(format!(
                "The number of resources must not exceed {RESOURCES_MAX}."
            )));
        }
        let mut unknown = Vec::new();
        for id in ids {
            let visible = self
                .instances
                .get(id)
                .is_none_or(|i| self.is_visible(i, now_ms));
            if self.tags_of(id).is_some() && visible {
                continue;
            }
            if !id.starts_with("i-") {
                return Err(Ec2Error::client(
                    "InvalidID",
                    format!("The ID '{id}' is not valid"),
                ));
            }
            unknown.push(id.clone());
        }
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(Ec2Error::no_instances(&unknown))
        }
    }

    fn tags_of(&self, id: &str) -> Option<&Tags> {
        if let Some(instance) = self.instances.get(id) {
            return Some(&instance.tags);
        }
        self.fleets
            .get(id)
            .or_else(|| self.subnets.get(id).map(|s| &s.tags))
            .or_else(|| {
                self.instances.values().find_map(|i| {
                    if i.volume_id == id {
                        Some(&i.volume_tags)
                    } else {
                        (i.network_interface_id == id).then_some(&i.network_interface_tags)
                    }
                })
            })
    }

    fn tags_of_mut(&mut self, id: &str) -> Option<&mut Tags> {
        if let Some(tags) = self.fleets.get_mut(id) {
            return Some(tags);
        }
        if let Some(subnet) = self.subnets.get_mut(id) {
            return Some(&mut subnet.tags);
        }
        if self.instances.contains_key(id) {
            return self.instances.get_mut(id).map(|i| &mut i.tags);
        }
        self.instances.values_mut().find_map(|i| {
            if i.volume_id == id {
                Some(&mut i.volume_tags)
            } else {
                (i.network_interface_id == id).then_some(&mut i.network_interface_tags)
            }
        })
    }
}
