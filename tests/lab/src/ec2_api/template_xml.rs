//! Reading launch templates from the XML of `DescribeLaunchTemplateVersions`, so that templates made elsewhere
//! (by `CloudFormation` in the emulator) can be put into the model. An element it does not carry is an error:
//! an instance launched without it would not be the instance the template describes.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;
use spillway_world::ec2::{
    BlockDeviceMapping, InstanceProfile, LaunchTemplate, LaunchTemplateData, MetadataOptions,
    NetworkInterfaceSpecification, ShutdownBehavior, SpotOptions, TagSpecification, Tags,
};
use thiserror::Error;

/// Why launch templates could not be read.
#[derive(Debug, Error)]
pub enum TemplateXmlError {
    /// Not well-formed.
    #[error("the answer is not well-formed XML: {0}")]
    Malformed(String),
    /// An element the model has no place for.
    #[error(
        "launch template {template}: `{element}` is not carried by the model; add it there first"
    )]
    NotCarried {
        /// The template's id.
        template: String,
        /// The element's name.
        element: String,
    },
    /// A value that cannot be read, or is missing.
    #[error("`{element}` has the value `{value}`, which cannot be read")]
    BadValue {
        /// The element's name.
        element: String,
        /// What it says; empty if it is missing.
        value: String,
    },
}

/// The launch templates in an answer of `DescribeLaunchTemplateVersions`, each with the versions it lists.
/// `$Default` is the version marked as default, or the highest where the answer lists no default.
pub fn parse_launch_template_versions(xml: &str) -> Result<Vec<LaunchTemplate>, TemplateXmlError> {
    let document = Element::parse(xml)?;
    let rows = document
        .find("launchTemplateVersionSet")
        .map_or(&[][..], |set| &set.below);
    let mut templates: BTreeMap<String, LaunchTemplate> = BTreeMap::new();
    for row in rows {
        let id = row.required("launchTemplateId")?;
        let version: u64 = row
            .parsed("versionNumber")?
            .ok_or_else(|| bad("versionNumber", ""))?;
        let data = row
            .child("launchTemplateData")
            .map(|data| read_data(&id, data))
            .transpose()?;
        let template = templates
            .entry(id.clone())
            .or_insert_with(|| LaunchTemplate {
                versions: BTreeMap::new(),
                default_version: 0,
                ..LaunchTemplate::new(&id, "", LaunchTemplateData::default())
            });
        template.name = row.text("launchTemplateName").unwrap_or_default();
        template.created_by = row.text("createdBy").unwrap_or_default();
        template.versions.insert(version, data.unwrap_or_default());
        if row.parsed::<bool>("defaultVersion")? == Some(true) {
            template.default_version = version;
        }
    }
    let mut templates: Vec<LaunchTemplate> = templates.into_values().collect();
    for template in &mut templates {
        if template.default_version == 0 {
            template.default_version = template.latest_version();
        }
    }
    Ok(templates)
}

fn read_data(template: &str, data: &Element) -> Result<LaunchTemplateData, TemplateXmlError> {
    let mut read = LaunchTemplateData::default();
    for element in data.below.iter().filter(|e| !e.is_empty()) {
        match element.name.as_str() {
            "imageId" => read.image_id = element.own_text(),
            "instanceType" => read.instance_type = element.own_text(),
            "userData" => read.user_data = element.own_text(),
            "keyName" => read.key_name = element.own_text(),
            "ebsOptimized" => read.ebs_optimized = data.parsed("ebsOptimized")?,
            "iamInstanceProfile" => {
                read.instance_profile = Some(InstanceProfile {
                    arn: element.text("arn"),
                    name: element.text("name"),
                });
            }
            "securityGroupIdSet" => read.security_group_ids = element.texts(),
            "networkInterfaceSet" => read.network_interfaces = all(element, interface)?,
            "blockDeviceMappingSet" => read.block_device_mappings = all(element, block_device)?,
            "metadataOptions" => read.metadata_options = metadata_options(element)?,
            "instanceInitiatedShutdownBehavior" => {
                let word = element.own_text().unwrap_or_default();
                let behavior =
                    ShutdownBehavior::parse(&word).map_err(|_| bad(&element.name, &word))?;
                read.shutdown_behavior = Some(behavior);
            }
            "instanceMarketOptions" => read.spot = spot(element)?,
            "tagSpecificationSet" => read.tag_specifications = all(element, tag_specification)?,
            "monitoring" => read.monitoring = element.parsed("enabled")?,
            "placement" => {
                read.availability_zone = element.text("availabilityZone");
                read.placement_group = element.text("groupName");
                read.tenancy = element.text("tenancy");
            }
            other => {
                let (template, element) = (template.to_owned(), other.to_owned());
                return Err(TemplateXmlError::NotCarried { template, element });
            }
        }
    }
    Ok(read)
}

fn all<T>(
    set: &Element,
    read: impl Fn(&Element) -> Result<T, TemplateXmlError>,
) -> Result<Vec<T>, TemplateXmlError> {
    set.below.iter().map(read).collect()
}

fn interface(element: &Element) -> Result<NetworkInterfaceSpecification, TemplateXmlError> {
    Ok(NetworkInterfaceSpecification {
        device_index: element.parsed("deviceIndex")?.unwrap_or(0),
        subnet_id: element.text("subnetId"),
        groups: element
            .child("groupSet")
            .map(Element::texts)
            .unwrap_or_default(),
        associate_public_ip_address: element.parsed("associatePublicIpAddress")?,
        delete_on_termination: element.parsed("deleteOnTermination")?,
        description: element.text("description"),
    })
}

fn block_device(element: &Element) -> Result<BlockDeviceMapping, TemplateXmlError> {
    let device_name = element.required("deviceName")?;
    let none = Element::default();
    let volume = element.child("ebs").unwrap_or(&none);
    Ok(BlockDeviceMapping {
        device_name,
        volume_size: volume.parsed("volumeSize")?,
        volume_type: volume.text("volumeType"),
        encrypted: volume.parsed("encrypted")?,
        delete_on_termination: volume.parsed("deleteOnTermination")?,
        iops: volume.parsed("iops")?,
        throughput: volume.parsed("throughput")?,
        kms_key_id: volume.text("kmsKeyId"),
        snapshot_id: volume.text("snapshotId"),
    })
}

fn metadata_options(element: &Element) -> Result<MetadataOptions, TemplateXmlError> {
    Ok(MetadataOptions {
        http_tokens: element.text("httpTokens"),
        http_put_response_hop_limit: element.parsed("httpPutResponseHopLimit")?,
        http_endpoint: element.text("httpEndpoint"),
        http_protocol_ipv6: element.text("httpProtocolIpv6"),
        instance_metadata_tags: element.text("instanceMetadataTags"),
    })
}

fn spot(element: &Element) -> Result<Option<SpotOptions>, TemplateXmlError> {
    match element.text("marketType").as_deref() {
        None => Ok(None),
        Some("spot") => {
            let options = element.child("spotOptions");
            Ok(Some(SpotOptions {
                max_price: options.and_then(|o| o.text("maxPrice")),
                interruption_behavior: options.and_then(|o| o.text("instanceInterruptionBehavior")),
            }))
        }
        Some(other) => Err(bad("marketType", other)),
    }
}

fn tag_specification(element: &Element) -> Result<TagSpecification, TemplateXmlError> {
    let none = Element::default();
    let rows = element.child("tagSet").unwrap_or(&none).below.iter();
    let tags = rows.map(|tag| Ok((tag.required("key")?, tag.text("value").unwrap_or_default())));
    let tags = tags.collect::<Result<Tags, TemplateXmlError>>()?;
    Ok(TagSpecification {
        resource_type: element.required("resourceType")?,
        tags,
    })
}

fn bad(element: &str, value: &str) -> TemplateXmlError {
    TemplateXmlError::BadValue {
        element: element.to_owned(),
        value: value.to_owned(),
    }
}

/// An XML element: its local name, its text, and the elements below it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    text: String,
    below: Vec<Element>,
}

impl Element {
    fn parse(xml: &str) -> Result<Self, TemplateXmlError> {
        let malformed =
            |error: &dyn std::fmt::Display| TemplateXmlError::Malformed(error.to_string());
        let mut reader = Reader::from_str(xml);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().map_err(|e| malformed(&e))? {
                Event::Start(tag) => open.push(Self::named(tag.local_name().as_ref())),
                Event::Empty(tag) => {
                    let element = Self::named(tag.local_name().as_ref());
                    open.last_mut()
                        .ok_or_else(|| malformed(&"no root"))?
                        .below
                        .push(element);
                }
                Event::Text(text) => {
                    let text = text.decode().map_err(|e| malformed(&e))?;
                    open.last_mut()
                        .ok_or_else(|| malformed(&"no root"))?
                        .text
                        .push_str(&text);
                }
                Event::GeneralRef(entity) => {
                    let name = entity.decode().map_err(|e| malformed(&e))?;
                    let text = quick_xml::escape::unescape(&format!("&{name};"))
                        .map_err(|e| malformed(&e))?
                        .into_owned();
                    open.last_mut()
                        .ok_or_else(|| malformed(&"no root"))?
                        .text
                        .push_str(&text);
                }
                Event::End(_) => {
                    let element = open.pop().ok_or_else(|| malformed(&"no element is open"))?;
                    open.last_mut()
                        .ok_or_else(|| malformed(&"no root"))?
                        .below
                        .push(element);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        match <[Self; 1]>::try_from(open) {
            Ok([root]) => Ok(root),
            Err(_) => Err(malformed(&"it ends within an element")),
        }
    }

    fn named(name: &[u8]) -> Self {
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            ..Self::default()
        }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.below.iter().find(|e| e.name == name)
    }

    fn find(&self, name: &str) -> Option<&Self> {
        self.child(name)
            .or_else(|| self.below.iter().find_map(|e| e.find(name)))
    }

    fn is_empty(&self) -> bool {
        self.below.is_empty() && self.text.trim().is_empty()
    }

    fn own_text(&self) -> Option<String> {
        let text = self.text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.child(name)?.own_text()
    }

    fn texts(&self) -> Vec<String> {
        self.below.iter().filter_map(Self::own_text).collect()
    }

    fn required(&self, name: &str) -> Result<String, TemplateXmlError> {
        self.text(name).ok_or_else(|| bad(name, ""))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, TemplateXmlError> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| bad(name, &text)))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The emulator's own answer (version 1.5.33), shortened.
    const MINISTACK: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeLaunchTemplateVersionsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
    <launchTemplateVersionSet><item><launchTemplateId>lt-88cee537d07e5604c</launchTemplateId>
        <launchTemplateName>b</launchTemplateName>
        <versionNumber>3</versionNumber>
        <versionDescription></versionDescription>
        <defaultVersion>true</defaultVersion>
        <createTime>2026-11-23T13:29:25Z</createTime>
        <createdBy>arn:aws:iam::000000000000:root</createdBy>
        <launchTemplateData><imageId>ami-0123456789abcdef0</imageId><userData>IyEvYmluL3NoCg==</userData><securityGroupIdSet><item>sg-1</item></securityGroupIdSet><blockDeviceMappingSet><item><deviceName>/dev/xvda</deviceName><ebs><volumeSize>20</volumeSize><volumeType>gp3</volumeType><encrypted>true</encrypted></ebs></item></blockDeviceMappingSet><iamInstanceProfile><arn>arn:aws:iam::000000000000:instance-profile/x</arn></iamInstanceProfile><tagSpecificationSet><item><resourceType>volume</resourceType><tagSet><item><key>cluster</key><value>a &amp; b</value></item></tagSet></item></tagSpecificationSet><monitoring><enabled>false</enabled></monitoring><metadataOptions><state>applied</state><httpTokens>required</httpTokens><httpPutResponseHopLimit>1</httpPutResponseHopLimit></metadataOptions><instanceInitiatedShutdownBehavior>terminate</instanceInitiatedShutdownBehavior></launchTemplateData></item></launchTemplateVersionSet>
    <requestId>82481e0d-5225-435c-af5a-ef2b7d3080dc</requestId>
</DescribeLaunchTemplateVersionsResponse>"#;

    #[test]
    fn reads_the_emulators_answer() {
        let templates = parse_launch_template_versions(MINISTACK).unwrap();
        let [template] = templates.as_slice() else {
            panic!("{templates:?}");
        };
        assert_eq!(
            (template.id.as_str(), template.default_version),
            ("lt-88cee537d07e5604c", 3)
        );
        let data = &template.versions[&3];
        assert_eq!(data.user_data.as_deref(), Some("IyEvYmluL3NoCg=="));
        assert_eq!(data.security_group_ids, ["sg-1"]);
        assert_eq!(data.block_device_mappings[0].encrypted, Some(true));
        assert_eq!(data.metadata_options.http_put_response_hop_limit, Some(1));
        assert_eq!(data.shutdown_behavior, Some(ShutdownBehavior::Terminate));
        assert_eq!(data.tags_for("volume")["cluster"], "a & b");
    }

    #[test]
    fn what_the_model_does_not_carry_is_an_error() {
        let other = MINISTACK.replace("<imageId>", "<kernelId>k</kernelId><imageId>");
        let error = parse_launch_template_versions(&other).unwrap_err();
        assert!(error.to_string().contains("`kernelId`"), "{error}");
        assert!(parse_launch_template_versions("<a><b></a>").is_err());
    }
}
