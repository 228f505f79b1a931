//! The model's store of launch templates: finding a version for a launch, and the two describing calls.

use super::error::{Ec2Error, Ec2Result};
use super::request::{Filter, LaunchTemplateSpecification, Page};
use super::template::{LaunchTemplate, LaunchTemplateData};
use super::{Ec2, filter, page};

/// A launch template version found for a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTemplate {
    /// `lt-…`.
    pub id: String,
    /// Its number.
    pub version: u64,
    /// What it says.
    pub data: LaunchTemplateData,
}

/// One row of `DescribeLaunchTemplateVersions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplateVersion {
    /// The template's id.
    pub id: String,
    /// The template's name.
    pub name: String,
    /// This version.
    pub version: u64,
    /// Whether `$Default` means it.
    pub is_default: bool,
    /// When the template was made.
    pub created_at_ms: u64,
    /// ARN of who made it.
    pub created_by: String,
    /// What it says.
    pub data: LaunchTemplateData,
}

/// `DescribeLaunchTemplates`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeLaunchTemplates {
    /// Only these ids.
    pub ids: Vec<String>,
    /// Only these names.
    pub names: Vec<String>,
    /// Filters: `launch-template-name`, `tag:KEY`, `tag-key`.
    pub filters: Vec<Filter>,
    /// Paging.
    pub page: Page,
}

/// `DescribeLaunchTemplateVersions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeLaunchTemplateVersions {
    /// The template; none with `$Latest` or `$Default` among the versions means all templates.
    pub template: Option<LaunchTemplateSpecification>,
    /// Version numbers, `$Latest`, `$Default`; none is all of one template.
    pub versions: Vec<String>,
    /// Paging.
    pub page: Page,
}

/// The most rows a page of launch templates or versions holds (API reference: 1 to 200).
const TEMPLATE_PAGE_MAX: usize = 200;

impl Ec2 {
    /// Puts a launch template in, replacing one of the same id.
    pub fn put_launch_template(&mut self, template: LaunchTemplate) {
        self.templates.insert(template.id.clone(), template);
    }

    /// The template a specification names, if the model knows it.
    #[must_use]
    pub fn launch_template(&self, by: &LaunchTemplateSpecification) -> Option<&LaunchTemplate> {
        match (&by.id, &by.name) {
            (Some(id), _) => self.templates.get(id),
            (None, Some(name)) => self.templates.values().find(|t| &t.name == name),
            (None, None) => None,
        }
    }

    fn require_launch_template(
        &self,
        by: &LaunchTemplateSpecification,
    ) -> Ec2Result<&LaunchTemplate> {
        if by.id.is_some() == by.name.is_some() {
            return Err(Ec2Error::client(
                "InvalidRequest",
                "The request must contain exactly one of the launch template's ID and name.",
            ));
        }
        self.launch_template(by)
            .ok_or_else(|| match (&by.id, &by.name) {
                (Some(id), _) => Ec2Error::client(
                    "InvalidLaunchTemplateId.NotFound",
                    format!(
                        "The specified launch template, with template ID {id}, does not exist."
                    ),
                ),
                (None, name) => Ec2Error::client(
                    "InvalidLaunchTemplateName.NotFoundException",
                    format!(
                        "The specified launch template, with template name {}, does not exist.",
                        name.as_deref().unwrap_or_default()
                    ),
                ),
            })
    }

    pub(super) fn resolve_template(
        &self,
        by: &LaunchTemplateSpecification,
    ) -> Ec2Result<ResolvedTemplate> {
        let template = self.require_launch_template(by)?;
        let version = template.version_number(by.version.as_deref().unwrap_or("$Default"))?;
        Ok(ResolvedTemplate {
            id: template.id.clone(),
            version,
            data: template.versions[&version].clone(),
        })
    }

    /// `DescribeLaunchTemplates`: those asked for, and the next page's token.
    pub fn describe_launch_templates(
        &mut self,
        now_ms: u64,
        request: &DescribeLaunchTemplates,
    ) -> Ec2Result<(Vec<LaunchTemplate>, Option<String>)> {
        let plain =
            request.ids.is_empty() && request.names.is_empty() && request.filters.is_empty();
        self.begin_describe(
            "DescribeLaunchTemplates",
            now_ms,
            plain && request.page.is_unpaged(),
        )?;
        filter::check(&request.filters, &["launch-template-name", "tag"])?;
        let by_id = request
            .ids
            .iter()
            .map(|id| LaunchTemplateSpecification::by_id(id));
        let by_name = request
            .names
            .iter()
            .map(|name| LaunchTemplateSpecification::by_name(name));
        let mut wanted = Vec::new();
        for by in by_id.chain(by_name) {
            wanted.push(self.require_launch_template(&by)?.clone());
        }
        if request.ids.is_empty() && request.names.is_empty() {
            wanted = self.templates.values().cloned().collect();
        }
        let mut kept = Vec::new();
        for template in wanted {
            if filter::all_match(&request.filters, |name| match name {
                "launch-template-name" => vec![template.name.clone()],
                other => filter::tag_values(other, &template.tags),
            }) {
                kept.push(template);
            }
        }
        page::cut(kept, &request.page, 1..=TEMPLATE_PAGE_MAX, |t| t.id.clone())
    }

    /// `DescribeLaunchTemplateVersions`: newest first, as EC2 lists them, and the next page's token.
    pub fn describe_launch_template_versions(
        &mut self,
        now_ms: u64,
        request: &DescribeLaunchTemplateVersions,
    ) -> Ec2Result<(Vec<LaunchTemplateVersion>, Option<String>)> {
        self.begin_describe("DescribeLaunchTemplateVersions", now_ms, false)?;
        let templates: Vec<&LaunchTemplate> = match &request.template {
            Some(by) => vec![self.require_launch_template(by)?],
            None if request.versions.is_empty() => {
                return Err(Ec2Error::missing("LaunchTemplateId"));
            }
            None => self.templates.values().collect(),
        };
        let mut rows = Vec::new();
        for template in templates {
            let numbers = if request.versions.is_empty() {
                template.versions.keys().rev().copied().collect()
            } else {
                request
                    .versions
                    .iter()
                    .map(|v| template.version_number(v))
                    .collect::<Ec2Result<Vec<_>>>()?
            };
            rows.extend(numbers.into_iter().map(|version| LaunchTemplateVersion {
                id: template.id.clone(),
                name: template.name.clone(),
                version,
                is_default: version == template.default_version,
                created_at_ms: template.created_at_ms,
                created_by: template.created_by.clone(),
                data: template.versions[&version].clone(),
            }));
        }
        page::cut(rows, &request.page, 1..=TEMPLATE_PAGE_MAX, |v| {
            format!("{}:{:020}", v.id, u64::MAX - v.version)
        })
    }
}
