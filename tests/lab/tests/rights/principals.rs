//! The principals, each with credentials as it has them in the field.

use std::collections::BTreeMap;

use serde_json::json;
use spillway_lab::emulator::root::{Credentials, RootClient};
use spillway_lab::emulator::{ACCOUNT, ROOT_KEY};
use spillway_lab::hypervisor::AssumeRole as _;
use spillway_lab::lab::Lab;

use crate::setting::Setting;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    HeadNode,
    /// The head node by the credentials of the SSM agent on it: the same policy on a role of the site's, which is
    /// also allowed what AWS's own policy for such agents allows.
    SsmAgent,
    Operator,
    Launch,
    Terminate,
    Callback,
    Publish,
    Report,
    Notice,
    Sweep,
    /// Our instance [`Setting::ours`].
    BurstNode,
    /// Somebody who got a session of the burst nodes' role without being an instance.
    NoInstance,
    /// A user who may read parameters below `/site/` and nothing else.
    Reader,
    /// The same, but denied the use of any key.
    KeylessReader,
    /// A key that nobody made.
    Stranger,
    /// `launch`'s key, with a secret that was guessed.
    Forger,
    /// The owner of the account, who may do everything.
    Owner,
}

impl Principal {
    /// Those that the template is for.
    pub const OF_THE_TEMPLATE: [Self; 10] = [
        Self::HeadNode,
        Self::Operator,
        Self::Launch,
        Self::Terminate,
        Self::Callback,
        Self::Publish,
        Self::Report,
        Self::Notice,
        Self::Sweep,
        Self::BurstNode,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::HeadNode => "head node",
            Self::SsmAgent => "SSM agent",
            Self::Operator => "operator",
            Self::Launch => "launch",
            Self::Terminate => "terminate",
            Self::Callback => "callback",
            Self::Publish => "publish",
            Self::Report => "report",
            Self::Notice => "notice",
            Self::Sweep => "sweep",
            Self::BurstNode => "burst node",
            Self::NoInstance => "no instance",
            Self::Reader => "reader",
            Self::KeylessReader => "keyless one",
            Self::Stranger => "stranger",
            Self::Forger => "forger",
            Self::Owner => "owner",
        }
    }
}

/// Everyone's credentials.
pub async fn credentials(lab: &Lab, setting: &Setting) -> BTreeMap<Principal, Credentials> {
    let root = lab.cloud.emulator.root();
    let mut who = BTreeMap::from([
        (Principal::HeadNode, lab.head_user.clone()),
        (Principal::SsmAgent, ssm_agent(lab, &root).await),
        (Principal::Operator, lab.operator.clone()),
        (Principal::BurstNode, burst_node(lab, &setting.ours).await),
        (Principal::Reader, reader(&root, "reader", false).await),
        (
            Principal::KeylessReader,
            reader(&root, "keyless", true).await,
        ),
        (
            Principal::Stranger,
            with_key("AKIAQQQQQQQQQQQQQQQQ", "none"),
        ),
        (Principal::Owner, with_key(ROOT_KEY, ROOT_KEY)),
    ]);
    let node_role = lab.output("BurstNodeRoleArn").unwrap();
    let session = root.assume_role(node_role, &setting.ours).await.unwrap();
    who.insert(Principal::NoInstance, session);
    for (principal, function) in [
        (Principal::Launch, "launch"),
        (Principal::Terminate, "terminate"),
        (Principal::Callback, "callback"),
        (Principal::Publish, "publish"),
        (Principal::Report, "report"),
        (Principal::Notice, "notice"),
        (Principal::Sweep, "sweep"),
    ] {
        who.insert(principal, function_role(lab, &root, function).await);
    }
    let launch = &who[&Principal::Launch];
    let forged = Credentials {
        secret_access_key: "guessed".to_owned(),
        ..launch.clone()
    };
    who.insert(Principal::Forger, forged);
    who
}

fn with_key(access_key_id: &str, secret_access_key: &str) -> Credentials {
    Credentials {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret_access_key.to_owned(),
        session_token: None,
        expiration: None,
    }
}

/// A session of a function's role, as Lambda makes one.
async fn function_role(lab: &Lab, root: &RootClient, function: &str) -> Credentials {
    let name = format!("{}-{function}", lab.spec.cluster);
    let functions = root.functions().await.unwrap();
    let found = functions.iter().find(|function| function.name == name);
    root.assume_role(&found.unwrap().role, &name).await.unwrap()
}

/// What instance metadata hands out to an instance.
async fn burst_node(lab: &Lab, instance_id: &str) -> Credentials {
    let role = lab.output("BurstNodeRoleArn").unwrap();
    let session = lab.sessions.assume_role(role, instance_id).await.unwrap();
    Credentials {
        access_key_id: session.access_key_id,
        secret_access_key: session.secret_access_key,
        session_token: Some(session.session_token),
        expiration: None,
    }
}

async fn ssm_agent(lab: &Lab, root: &RootClient) -> Credentials {
    let trust = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"}, "Action": "sts:AssumeRole"}});
    let role = ("RoleName", "site-head-node");
    let trust = trust.to_string();
    let create = [role, ("AssumeRolePolicyDocument", trust.as_str())];
    root.iam("CreateRole", &create).await.unwrap();
    for policy in [
        lab.output("HeadNodePolicyArn").unwrap(),
        "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
    ] {
        let attach = [role, ("PolicyArn", policy)];
        root.iam("AttachRolePolicy", &attach).await.unwrap();
    }
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/{}", role.1);
    root.assume_role(&arn, "mi-0123456789abcdef0")
        .await
        .unwrap()
}

async fn reader(root: &RootClient, name: &str, is_denied_keys: bool) -> Credentials {
    let credentials = root.create_user(name, &[]).await.unwrap();
    let read = json!({
        "Effect": "Allow", "Action": "ssm:GetParameter*", "Resource": "arn:aws:ssm:*:*:parameter/site/*"});
    let deny = json!({
        "Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*",
        "Condition": {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": "arn:aws:ssm:*:*:parameter/site/*"}}});
    let statements = [Some(read), is_denied_keys.then_some(deny)];
    let statements: Vec<_> = statements.into_iter().flatten().collect();
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let parameters = [
        ("UserName", name),
        ("PolicyName", "read"),
        ("PolicyDocument", policy.as_str()),
    ];
    root.iam("PutUserPolicy", &parameters).await.unwrap();
    credentials
}
