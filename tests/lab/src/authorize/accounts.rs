//! Who calls, and what its policies say: read from the emulator's IAM, where the deployment put them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::AuthorizeError;
use super::context::Context;
use super::policy::Policy;
use crate::emulator::root::RootClient;
use crate::emulator::{ACCOUNT, REGION};
use crate::xml;

/// A changed policy holds within this time; on AWS within seconds too. Short, so that a test that changes one
/// waits no longer than that; not zero, for the emulator answers one call at a time.
const POLICIES_KEPT: Duration = Duration::from_secs(2);

/// Who signed a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The account itself: allowed everything.
    Root,
    /// A user, by name.
    User(String),
    /// A session of a role.
    Session {
        /// The role's name.
        role: String,
        /// The session's name: a function's name, an instance's id.
        session: String,
    },
}

impl Principal {
    /// Reads the ARN by which STS knows a caller.
    #[must_use]
    pub fn from_arn(arn: &str) -> Option<Self> {
        let resource = arn.splitn(6, ':').nth(5)?;
        match resource.split('/').collect::<Vec<_>>()[..] {
            ["root"] => Some(Self::Root),
            ["user", .., name] => Some(Self::User(name.to_owned())),
            ["assumed-role", role, session] => Some(Self::Session {
                role: role.to_owned(),
                session: session.to_owned(),
            }),
            _ => None,
        }
    }
}

/// What is known of a user or role.
#[derive(Debug)]
pub(super) struct Account {
    arn: String,
    unique_id: String,
    tags: BTreeMap<String, String>,
    /// All its policies.
    pub policies: Vec<Policy>,
}

/// The accounts of the emulator's IAM.
#[derive(Debug)]
pub(super) struct Accounts {
    root: RootClient,
    kept: Mutex<Kept>,
}

/// The accounts by their names, each with the time when it was read.
type Kept = HashMap<(Kind, String), (Arc<Account>, Instant)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    User,
    Role,
}

impl Kind {
    /// As it stands in the names of IAM's actions and fields.
    fn word(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Role => "Role",
        }
    }
}

impl Accounts {
    pub(super) fn new(root: RootClient) -> Self {
        Self {
            root,
            kept: Mutex::default(),
        }
    }

    /// The account behind a principal; none for root, which has no policies.
    pub(super) async fn of(
        &self,
        principal: &Principal,
    ) -> Result<Option<Arc<Account>>, AuthorizeError> {
        let (kind, name) = match principal {
            Principal::Root => return Ok(None),
            Principal::User(name) => (Kind::User, name),
            Principal::Session { role, .. } => (Kind::Role, role),
        };
        let key = (kind, name.clone());
        let kept = self.lock().get(&key).cloned();
        if let Some((account, read_at)) = kept
            && read_at.elapsed() < POLICIES_KEPT
        {
            return Ok(Some(account));
        }
        let account = Arc::new(self.read(kind, name).await?);
        let kept = (Arc::clone(&account), Instant::now());
        self.lock().insert(key, kept);
        Ok(Some(account))
    }

    /// Reads everything anew from now on.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    async fn read(&self, kind: Kind, name: &str) -> Result<Account, AuthorizeError> {
        let word = kind.word();
        let parameter = format!("{word}Name");
        let named = [(parameter.as_str(), name)];
        let iam = async |action: String| self.root.iam(&action, &named).await;
        let about = iam(format!("Get{word}")).await?;
        if xml::text(&about, "PermissionsBoundary").is_some() {
            return Err(AuthorizeError::Unknown("permissions boundaries"));
        }
        if kind == Kind::User
            && xml::text(&iam("ListGroupsForUser".to_owned()).await?, "GroupName").is_some()
        {
            return Err(AuthorizeError::Unknown("groups of users"));
        }
        let mut documents = Vec::new();
        for policy in xml::texts(&iam(format!("List{word}Policies")).await?, "member") {
            let parameters = [named[0], ("PolicyName", policy.as_str())];
            let answer = self
                .root
                .iam(&format!("Get{word}Policy"), &parameters)
                .await?;
            documents.push(xml::text(&answer, "PolicyDocument").unwrap_or_default());
        }
        let attached = iam(format!("ListAttached{word}Policies")).await?;
        for policy in xml::texts(&attached, "PolicyArn") {
            documents.push(self.default_version(&policy).await?);
        }
        let policies = documents
            .iter()
            .map(|document| Ok(Policy::parse(&decoded(document))?));
        let tags = xml::blocks(&about, "Tags").concat();
        let tags = xml::texts(&tags, "Key")
            .into_iter()
            .zip(xml::texts(&tags, "Value"));
        Ok(Account {
            arn: xml::text(&about, "Arn").unwrap_or_default(),
            unique_id: xml::text(&about, &format!("{word}Id")).unwrap_or_default(),
            tags: tags.collect(),
            policies: policies.collect::<Result<_, AuthorizeError>>()?,
        })
    }

    async fn default_version(&self, policy_arn: &str) -> Result<String, AuthorizeError> {
        let named = ("PolicyArn", policy_arn);
        let answer = self.root.iam("GetPolicy", &[named]).await?;
        let version = xml::text(&answer, "DefaultVersionId").unwrap_or_default();
        let parameters = [named, ("VersionId", version.as_str())];
        let answer = self.root.iam("GetPolicyVersion", &parameters).await?;
        Ok(xml::text(&answer, "Document").unwrap_or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// The ARN under which refusals and STS know the caller.
    pub(super) fn caller_arn(&self, principal: &Principal) -> String {
        match principal {
            Principal::Session { role, session } => {
                format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}")
            }
            Principal::User(_) | Principal::Root => self.arn.clone(),
        }
    }

    /// The condition keys that say who calls.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html>
    pub(super) fn keys(&self, principal: &Principal) -> Context {
        let mut context = Context::default()
            .with("aws:PrincipalArn", &self.arn)
            .with("aws:PrincipalAccount", ACCOUNT)
            .with("aws:RequestedRegion", REGION)
            // The proxy serves https only.
            .with("aws:SecureTransport", "true");
        match principal {
            Principal::Session { session, .. } => {
                context.set("aws:PrincipalType", "AssumedRole");
                context.set("aws:userid", format!("{}:{session}", self.unique_id));
            }
            Principal::User(name) => {
                context.set("aws:PrincipalType", "User");
                context.set("aws:userid", &self.unique_id);
                context.set("aws:username", name);
            }
            Principal::Root => {}
        }
        for (key, value) in &self.tags {
            context.set(&format!("aws:PrincipalTag/{key}"), value);
        }
        context
    }
}

/// IAM gives documents percent-encoded (RFC 3986, so a plus is a plus).
fn decoded(document: &str) -> String {
    let form = format!("d={}", document.replace('+', "%2B"));
    form_urlencoded::parse(form.as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_read_from_their_arns() {
        let session = Principal::Session {
            role: "node".to_owned(),
            session: "i-1".to_owned(),
        };
        let table = [
            ("arn:aws:iam::1:root", Some(Principal::Root)),
            (
                "arn:aws:iam::1:user/a/b/ann",
                Some(Principal::User("ann".to_owned())),
            ),
            ("arn:aws:sts::1:assumed-role/node/i-1", Some(session)),
            ("arn:aws:sts::1:federated-user/ann", None),
            ("nonsense", None),
        ];
        for (arn, expected) in table {
            assert_eq!(Principal::from_arn(arn), expected, "{arn}");
        }
    }

    #[test]
    fn documents_are_decoded() {
        assert_eq!(decoded("%7B%22a%2Bb%22%3A+%7D"), r#"{"a+b":+}"#);
    }
}
