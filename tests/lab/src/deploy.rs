//! Deploys the SAM template with the real Lambda binaries, by the same `sam deploy` as on AWS.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use bytes::Bytes;
use http::Method;
use tokio::process::Command;

use crate::{
    emulator::{
        REGION, ROOT_KEY,
        root::{RootClient, RootError},
    },
    proxy::Principals,
    tls::Certificates,
    xml,
};

/// The functions of the template, each a binary of that name.
pub const FUNCTIONS: [&str; 7] = [
    "launch",
    "terminate",
    "callback",
    "publish",
    "report",
    "notice",
    "sweep",
];

/// Where `sam` puts the zips. Made by the lab, for `sam` would deploy a stack of its own to make one.
const BUCKET: &str = "lab-artifacts";

/// Lines of `sam`'s output that go into the error.
const TAIL_LINES: usize = 20;

/// Why the stack is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A file is missing or cannot be written.
    #[error("provide {path} for the deployment")]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `sam deploy` failed.
    #[error("correct the template or its parameters: {reasons}\nsam deploy ended with\n{tail}")]
    Failed {
        /// What CloudFormation says of the resources that failed, the cause first.
        reasons: String,
        /// The last lines of the output.
        tail: String,
    },
    /// The emulator did not do it.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// What to deploy, and through what.
#[derive(Debug)]
pub struct Deployment<'a> {
    /// The Python environment that holds `sam`.
    pub venv: &'a Path,
    /// A directory of its own, made if absent: a copy of the template, the binaries beside it, the log.
    pub state: &'a Path,
    /// The lab's certificates.
    pub certificates: &'a Certificates,
    /// The proxy's URL.
    pub endpoint_url: &'a str,
    /// The template, `infra/sam/template.yaml`.
    pub template: &'a Path,
    /// The directory with a built binary for each of [`FUNCTIONS`].
    pub binaries: &'a Path,
    /// The stack's name.
    pub stack_name: &'a str,
    /// The template's parameters; those left out keep their defaults.
    pub parameters: &'a [(&'a str, &'a str)],
}

impl Deployment<'_> {
    /// Creates the stack, or updates it, and gives its outputs. The functions' names become known to the
    /// journal.
    pub async fn deploy(
        &self,
        root: &RootClient,
        principals: &Principals,
    ) -> Result<BTreeMap<String, String>, DeployError> {
        let template = self.lay_out().await?;
        let bucket = format!("/{BUCKET}");
        root.rest("s3", Method::PUT, &bucket, Bytes::new()).await?;
        self.sam_deploy(&template, root).await?;
        for function in root.functions().await? {
            principals.register_function(&function.arn, &function.role, &function.name);
        }
        self.outputs(root).await
    }

    /// Copies the template and the binaries into the layout that the template's `CodeUri` expects,
    /// `target/lambda/FUNCTION/bootstrap` two directories above it, as `cargo lambda build` makes it.
    async fn lay_out(&self) -> Result<PathBuf, DeployError> {
        let template = self.state.join("infra/sam/template.yaml");
        copy(self.template, &template)?;
        for function in FUNCTIONS {
            let bootstrap = self
                .state
                .join("target/lambda")
                .join(function)
                .join("bootstrap");
            copy(&self.binaries.join(function), &bootstrap)?;
            // Symbols are most of a binary that was not built for release, and zipping is most of a
            // deployment's time. What cannot be stripped is deployed as it is.
            let _ = Command::new("strip")
                .arg(&bootstrap)
                .stderr(Stdio::null())
                .status()
                .await;
        }
        Ok(template)
    }

    async fn sam_deploy(&self, template: &Path, root: &RootClient) -> Result<(), DeployError> {
        let program = self.venv.join("bin/sam");
        let output = Command::new(&program)
            .args([
                "deploy",
                "--no-confirm-changeset",
                "--no-fail-on-empty-changeset",
            ])
            .args(["--no-progressbar", "--stack-name", self.stack_name])
            .args(["--s3-bucket", BUCKET, "--region", REGION])
            .args(["--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"])
            .arg("--template-file")
            .arg(template)
            .arg("--parameter-overrides")
            .args(
                self.parameters
                    .iter()
                    .map(|(key, value)| format!("{key}={value}")),
            )
            .current_dir(self.state)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.state)
            // It leaves its temporary directories where it made them.
            .env("TMPDIR", self.state)
            .env("AWS_ENDPOINT_URL", self.endpoint_url)
            .env("AWS_CA_BUNDLE", &self.certificates.bundle)
            .env("AWS_ACCESS_KEY_ID", ROOT_KEY)
            .env("AWS_SECRET_ACCESS_KEY", ROOT_KEY)
            .env("SAM_CLI_TELEMETRY", "0")
            // How often it asks for the stack's state; 0.5 s is for AWS's rate limits.
            .env("SAM_CLI_POLL_DELAY", "0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(file(&program))?;
        let text = [output.stdout, output.stderr].concat();
        let log = self.state.join("sam-deploy.log");
        fs::write(&log, &text).map_err(file(&log))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        Err(DeployError::Failed {
            reasons: self.failures(root).await,
            tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        })
    }

    /// What CloudFormation noted about the resources that failed, oldest first: the first is the cause.
    async fn failures(&self, root: &RootClient) -> String {
        let parameters = [("StackName", self.stack_name)];
        let Ok(answer) = root
            .query(
                "cloudformation",
                VERSION,
                "DescribeStackEvents",
                &parameters,
            )
            .await
        else {
            return "there is no stack".to_owned();
        };
        let reasons: Vec<String> = xml::blocks(&answer, "member")
            .into_iter()
            .rev()
            .filter(|event| {
                xml::text(event, "ResourceStatus").is_some_and(|status| status.ends_with("_FAILED"))
            })
            .filter_map(|event| {
                let resource = xml::text(&event, "LogicalResourceId")?;
                let reason = xml::text(&event, "ResourceStatusReason")?;
                Some(format!("{resource}: {reason}"))
            })
            .collect();
        if reasons.is_empty() {
            return "no resource failed".to_owned();
        }
        reasons.join("; ")
    }

    async fn outputs(&self, root: &RootClient) -> Result<BTreeMap<String, String>, DeployError> {
        let parameters = [("StackName", self.stack_name)];
        let answer = root
            .query("cloudformation", VERSION, "DescribeStacks", &parameters)
            .await?;
        Ok(xml::texts(&answer, "OutputKey")
            .into_iter()
            .zip(xml::texts(&answer, "OutputValue"))
            .collect())
    }
}

/// CloudFormation's API version.
const VERSION: &str = "2010-05-15";

fn copy(from: &Path, to: &Path) -> Result<(), DeployError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(file(parent))?;
    }
    fs::copy(from, to).map(|_| ()).map_err(file(from))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> DeployError {
    let path = path.to_owned();
    move |source| DeployError::File { path, source }
}
