//! What the calls are about: instances of ours, of others and of nobody, items, parameters, another template, another
//! role.

use serde_json::{Value, json};
use spillway_lab::emulator::root::RootClient;
use spillway_lab::emulator::{ACCOUNT, REGION};
use spillway_lab::lab::{APPLY_DOCUMENT, HEAD_NODE_ID, Lab};
use spillway_world::ec2::{LaunchTemplate, LaunchTemplateData, RunInstances, TagSpecification};

/// A launch template that is not ours.
pub const OTHER_TEMPLATE: &str = "lt-0fedcba9876543210";

/// Names and ids that the table speaks of.
pub struct Setting {
    /// The cluster.
    pub cluster: String,
    /// An instance of ours.
    pub ours: String,
    /// One of ours that may be terminated.
    pub doomed: String,
    /// An instance of another cluster.
    pub theirs: String,
    /// An instance without tags.
    pub stray: String,
    /// A subnet of the burst nodes.
    pub subnet: String,
    /// Our launch template.
    pub template: String,
    /// An instance profile with another role in it.
    pub other_profile: String,
    /// The table.
    pub table: String,
    /// The event bus.
    pub bus: String,
    /// The document that the head node is sent.
    pub document: &'static str,
    /// The head node as SSM knows it.
    pub head_node: &'static str,
    queues: Vec<(String, String)>,
}

impl Setting {
    pub async fn make(lab: &Lab) -> Self {
        let root = lab.cloud.emulator.root();
        let subnet = lab.network.subnets()[0].subnet_id.clone();
        let launch = |cluster: Option<&str>| launch(lab, &subnet, cluster);
        let queues = lab
            .outputs
            .iter()
            .filter(|(name, _)| name.ends_with("QueueUrl"));
        let setting = Self {
            cluster: lab.spec.cluster.clone(),
            ours: launch(Some(&lab.spec.cluster)),
            doomed: launch(Some(&lab.spec.cluster)),
            theirs: launch(Some("other")),
            stray: launch(None),
            subnet: subnet.clone(),
            template: lab.output("LaunchTemplateId").unwrap().to_owned(),
            other_profile: other_profile(&root).await,
            table: lab.output("TableName").unwrap().to_owned(),
            bus: lab.output("EventBusName").unwrap().to_owned(),
            document: APPLY_DOCUMENT,
            head_node: HEAD_NODE_ID,
            queues: queues
                .map(|(name, url)| (name.clone(), url.clone()))
                .collect(),
        };
        let data = LaunchTemplateData {
            image_id: Some("ami-0123456789abcdef0".to_owned()),
            ..LaunchTemplateData::default()
        };
        let other = LaunchTemplate::new(OTHER_TEMPLATE, "other", data);
        lab.ec2.with(|ec2, _| ec2.put_launch_template(other));
        for id in [&setting.ours, &setting.theirs] {
            let item = json!({"pk": {"S": instance_arn(id)}, "kind": {"S": "instance"}});
            let put = json!({"TableName": setting.table, "Item": item});
            root.json("dynamodb", "DynamoDB_20120810.PutItem", &put)
                .await
                .unwrap();
        }
        parameters(&root, &setting.signing_key()).await;
        setting
    }

    /// The URL of a queue by the start of its output's name, such as `Resume` or `ResumeDeadLetter`.
    pub fn queue(&self, name: &str) -> &str {
        let output = format!("{name}QueueUrl");
        let found = self.queues.iter().find(|(name, _)| *name == output);
        &found.expect("the stack has the queue").1
    }

    /// The name of a key that envelopes are signed with.
    pub fn signing_key(&self) -> String {
        format!("/spillway/{}/signing-key/0123456789abcdef", self.cluster)
    }

    /// The name of one that is to be made.
    pub fn new_key(&self) -> String {
        format!("/spillway/{}/signing-key/fedcba9876543210", self.cluster)
    }

    /// The key of the policy's item.
    pub fn policy(&self) -> String {
        format!("POLICY#{}", self.cluster)
    }

    /// The name of what nodes join with.
    pub fn munge_key(&self) -> String {
        format!("/spillway/{}/munge-key", self.cluster)
    }
}

/// The key of an instance's item.
pub fn instance_arn(instance_id: &str) -> String {
    format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance_id}")
}

/// An instance, by the model itself; EC2's events boot no machine that matters here.
fn launch(lab: &Lab, subnet: &str, cluster: Option<&str>) -> String {
    let tags = cluster.map(|cluster| ("spillway:cluster".to_owned(), cluster.to_owned()));
    let direct = LaunchTemplateData {
        image_id: Some("ami-0123456789abcdef0".to_owned()),
        instance_type: Some(lab.spec.instance_types[0].clone()),
        tag_specifications: vec![TagSpecification {
            resource_type: "instance".to_owned(),
            tags: tags.into_iter().collect(),
        }],
        ..LaunchTemplateData::default()
    };
    let request = RunInstances {
        direct,
        subnet_id: Some(subnet.to_owned()),
        min_count: 1,
        max_count: 1,
        ..RunInstances::default()
    };
    let reservation = lab
        .ec2
        .with(|ec2, now_ms| ec2.run_instances(now_ms, &request));
    reservation.unwrap().instances[0].instance_id.clone()
}

/// A role that is not the burst nodes', ready to be given to instances.
async fn other_profile(root: &RootClient) -> String {
    let trust = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}});
    let (role, trust) = (("RoleName", "administrator"), trust.to_string());
    let profile = ("InstanceProfileName", "administrator");
    let create = [role, ("AssumeRolePolicyDocument", trust.as_str())];
    root.iam("CreateRole", &create).await.unwrap();
    root.iam("CreateInstanceProfile", &[profile]).await.unwrap();
    root.iam("AddRoleToInstanceProfile", &[profile, role])
        .await
        .unwrap();
    profile.1.to_owned()
}

/// The signing key, and two of the site's own: under AWS's key and under a customer's.
async fn parameters(root: &RootClient, signing_key: &str) {
    let key = root
        .json("kms", "TrentService.CreateKey", &json!({}))
        .await
        .unwrap();
    let customer_key = &key["KeyMetadata"]["KeyId"];
    let secret = |name: &str, key_id: &Value| json!({"Name": name, "Type": "SecureString", "Value": "throwaway", "KeyId": key_id});
    let default = json!("alias/aws/ssm");
    for parameter in [
        secret(signing_key, &default),
        secret("/site/by-the-default-key", &default),
        secret("/site/by-a-customer-key", customer_key),
    ] {
        root.json("ssm", "AmazonSSM.PutParameter", &parameter)
            .await
            .unwrap();
    }
}
