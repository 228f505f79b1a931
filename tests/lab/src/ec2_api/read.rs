//! From a call's parameters to the model's requests.

mod launch;

use spillway_world::ec2::{
    CreateFleet, DescribeAvailabilityZones, DescribeInstanceStatus, DescribeInstanceTypes,
    DescribeInstances, DescribeLaunchTemplateVersions, DescribeLaunchTemplates,
    DescribeSpotPriceHistory, DescribeSubnets, DescribeTags, Ec2Error, Ec2Result, Filter,
    LaunchTemplateSpecification, Page, RunInstances, Tags,
};

use super::params::{Params, invalid};

/// The API version this speaks, the only one EC2 has had since 2016.
const VERSION: &str = "2016-11-15";

/// A call, read.
#[derive(Debug)]
pub enum Call {
    /// `RunInstances`.
    RunInstances(Box<RunInstances>),
    /// `CreateFleet`.
    CreateFleet(Box<CreateFleet>),
    /// `TerminateInstances`.
    TerminateInstances(Vec<String>),
    /// `CreateTags`: resources and tags.
    CreateTags(Vec<String>, Tags),
    /// `DeleteTags`: resources and keys, with the value where one was given.
    DeleteTags(Vec<String>, Vec<(String, Option<String>)>),
    /// `DescribeTags`.
    DescribeTags(DescribeTags),
    /// `DescribeInstances`.
    DescribeInstances(DescribeInstances),
    /// `DescribeInstanceStatus`.
    DescribeInstanceStatus(DescribeInstanceStatus),
    /// `DescribeInstanceAttribute`.
    DescribeInstanceAttribute(String, Attribute),
    /// `DescribeSubnets`.
    DescribeSubnets(DescribeSubnets),
    /// `DescribeAvailabilityZones`.
    DescribeAvailabilityZones(DescribeAvailabilityZones),
    /// `DescribeInstanceTypes`.
    DescribeInstanceTypes(DescribeInstanceTypes),
    /// `DescribeSpotPriceHistory`.
    DescribeSpotPriceHistory(DescribeSpotPriceHistory),
    /// `DescribeLaunchTemplates`.
    DescribeLaunchTemplates(DescribeLaunchTemplates),
    /// `DescribeLaunchTemplateVersions`.
    DescribeLaunchTemplateVersions(DescribeLaunchTemplateVersions),
    /// `GetConsoleOutput`.
    GetConsoleOutput(String),
}

/// The attributes `DescribeInstanceAttribute` is answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `userData`.
    UserData,
    /// `instanceInitiatedShutdownBehavior`.
    ShutdownBehavior,
    /// `instanceType`.
    InstanceType,
    /// `groupSet`.
    Groups,
}

/// A call as it came: its action's name, what it asks, and whether only to say if it would be done.
#[derive(Debug)]
pub struct Request {
    /// The action's name.
    pub action: String,
    /// What is asked.
    pub call: Call,
    /// `DryRun`.
    pub dry_run: bool,
}

impl Request {
    /// Reads a call. Unknown actions, parameters and values are refused.
    pub fn read(mut params: Params) -> Ec2Result<Self> {
        let action = params.text("Action").ok_or_else(|| {
            Ec2Error::client(
                "MissingAction",
                "The request must contain the parameter Action",
            )
        })?;
        let version = params.text("Version");
        if version.as_deref() != Some(VERSION) {
            let message = format!(
                "The version {} is not supported.",
                version.unwrap_or_default()
            );
            return Err(Ec2Error::client("InvalidVersion", message));
        }
        let dry_run = params.boolean("DryRun")?.unwrap_or(false);
        let call = read_call(&action, &mut params, dry_run)?;
        params.finish()?;
        Ok(Self {
            action,
            call,
            dry_run,
        })
    }

    /// The launch templates the call depends on. A specification with neither id nor name stands for all.
    pub fn launch_templates(&self) -> Vec<LaunchTemplateSpecification> {
        match &self.call {
            Call::RunInstances(run) => run.launch_template.iter().cloned().collect(),
            Call::CreateFleet(fleet) => fleet
                .configs
                .iter()
                .map(|config| config.launch_template.clone())
                .collect(),
            Call::DescribeLaunchTemplateVersions(describe) => {
                vec![describe.template.clone().unwrap_or_default()]
            }
            Call::DescribeLaunchTemplates(describe) => {
                let ids = describe
                    .ids
                    .iter()
                    .map(|id| LaunchTemplateSpecification::by_id(id));
                let names = describe
                    .names
                    .iter()
                    .map(|name| LaunchTemplateSpecification::by_name(name));
                let wanted: Vec<_> = ids.chain(names).collect();
                if wanted.is_empty() {
                    vec![LaunchTemplateSpecification::default()]
                } else {
                    wanted
                }
            }
            _ => Vec::new(),
        }
    }
}

fn read_call(action: &str, params: &mut Params, dry_run: bool) -> Ec2Result<Call> {
    Ok(match action {
        "RunInstances" => Call::RunInstances(Box::new(launch::run_instances(params, dry_run)?)),
        "CreateFleet" => Call::CreateFleet(Box::new(launch::create_fleet(params, dry_run)?)),
        "TerminateInstances" => Call::TerminateInstances(params.texts("InstanceId")),
        "CreateTags" => Call::CreateTags(params.texts("ResourceId"), tags(params)?),
        "DeleteTags" => {
            let resources = params.texts("ResourceId");
            Call::DeleteTags(resources, tag_keys(params)?)
        }
        "DescribeTags" => Call::DescribeTags(DescribeTags {
            filters: filters(params)?,
            page: page(params)?,
        }),
        "DescribeInstances" => Call::DescribeInstances(DescribeInstances {
            instance_ids: params.texts("InstanceId"),
            filters: filters(params)?,
            page: page(params)?,
        }),
        "DescribeInstanceStatus" => Call::DescribeInstanceStatus(DescribeInstanceStatus {
            instance_ids: params.texts("InstanceId"),
            filters: filters(params)?,
            include_all: params.boolean("IncludeAllInstances")?.unwrap_or(false),
            page: page(params)?,
        }),
        "DescribeInstanceAttribute" => {
            let attribute = attribute(&params.required("Attribute")?)?;
            Call::DescribeInstanceAttribute(params.required("InstanceId")?, attribute)
        }
        "GetConsoleOutput" => {
            // Every read is the latest here, as on Nitro instances.
            params.boolean("Latest")?;
            Call::GetConsoleOutput(params.required("InstanceId")?)
        }
        other => read_surroundings(other, params)?,
    })
}

/// The calls about what surrounds instances.
fn read_surroundings(action: &str, params: &mut Params) -> Ec2Result<Call> {
    Ok(match action {
        "DescribeSubnets" => Call::DescribeSubnets(DescribeSubnets {
            subnet_ids: params.texts("SubnetId"),
            filters: filters(params)?,
            page: page(params)?,
        }),
        "DescribeAvailabilityZones" => Call::DescribeAvailabilityZones(DescribeAvailabilityZones {
            names: params.texts("ZoneName"),
            ids: params.texts("ZoneId"),
            filters: filters(params)?,
        }),
        "DescribeInstanceTypes" => Call::DescribeInstanceTypes(DescribeInstanceTypes {
            instance_types: params.texts("InstanceType"),
            filters: filters(params)?,
            page: page(params)?,
        }),
        "DescribeSpotPriceHistory" => Call::DescribeSpotPriceHistory(spot_price_history(params)?),
        "DescribeLaunchTemplates" => Call::DescribeLaunchTemplates(DescribeLaunchTemplates {
            ids: params.texts("LaunchTemplateId"),
            names: params.texts("LaunchTemplateName"),
            filters: filters(params)?,
            page: page(params)?,
        }),
        "DescribeLaunchTemplateVersions" => {
            let template = LaunchTemplateSpecification {
                id: params.text("LaunchTemplateId"),
                name: params.text("LaunchTemplateName"),
                version: None,
            };
            let named = template.id.is_some() || template.name.is_some();
            Call::DescribeLaunchTemplateVersions(DescribeLaunchTemplateVersions {
                template: named.then_some(template),
                versions: params.texts("LaunchTemplateVersion"),
                page: page(params)?,
            })
        }
        other => {
            let message = format!("The action {other} is not valid for this web service.");
            return Err(Ec2Error::client("InvalidAction", message));
        }
    })
}

fn spot_price_history(params: &mut Params) -> Ec2Result<DescribeSpotPriceHistory> {
    let products = params.texts("ProductDescription");
    if let Some(other) = products.iter().find(|p| !p.starts_with("Linux/UNIX")) {
        return Err(invalid(other, "productDescription"));
    }
    // Only the present price is known, and it is within any span of time that reaches to now.
    params.text("StartTime");
    params.text("EndTime");
    Ok(DescribeSpotPriceHistory {
        instance_types: params.texts("InstanceType"),
        availability_zone: params.text("AvailabilityZone"),
        page: page(params)?,
    })
}

fn attribute(name: &str) -> Ec2Result<Attribute> {
    match name {
        "userData" => Ok(Attribute::UserData),
        "instanceInitiatedShutdownBehavior" => Ok(Attribute::ShutdownBehavior),
        "instanceType" => Ok(Attribute::InstanceType),
        "groupSet" => Ok(Attribute::Groups),
        other => Err(invalid(other, "attribute")),
    }
}

fn filters(params: &mut Params) -> Ec2Result<Vec<Filter>> {
    params
        .list("Filter")
        .into_iter()
        .map(|filter| {
            Ok(Filter {
                name: filter.required("Name")?,
                values: filter.texts("Value"),
            })
        })
        .collect()
}

fn page(params: &mut Params) -> Ec2Result<Page> {
    Ok(Page {
        max_results: params.number("MaxResults")?,
        next_token: params.text("NextToken"),
    })
}

/// `Tag.1.Key`, `Tag.1.Value` …
fn tags(params: &mut Params) -> Ec2Result<Tags> {
    let pairs = tag_keys(params)?.into_iter();
    Ok(pairs
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

fn tag_keys(params: &mut Params) -> Ec2Result<Vec<(String, Option<String>)>> {
    let tags = params.list("Tag").into_iter();
    tags.map(|tag| Ok((tag.required("Key")?, tag.text("Value"))))
        .collect()
}
