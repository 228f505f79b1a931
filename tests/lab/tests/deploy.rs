//! The SAM template deployed to the emulator through the proxy, with functions that call home.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use spillway_lab::{
    cloud::Cloud,
    deploy::{Deployment, FUNCTIONS},
    emulator, install,
};

const PARAMETERS: [(&str, &str); 4] = [
    ("ClusterName", "deploytest"),
    ("VpcId", "vpc-lab0"),
    ("HeadNodeCidr", "10.64.0.1/32"),
    ("ImageId", "ami-0123456789abcdef0"),
];

fn shipped_template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sam/template.yaml")
}

/// Functions that speak Lambda's Runtime API and answer with who they are and what queue they were given.
fn functions(directory: &Path, python: &Path) {
    let text = format!(
        r#"#!{}
import boto3, json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as event:
        request = event.headers["Lambda-Runtime-Aws-Request-Id"]
    answer = {{
        "arn": boto3.client("sts").get_caller_identity()["Arn"],
        "environment": sorted(os.environ),
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
    }}
    urllib.request.urlopen(api + request + "/response", json.dumps(answer).encode()).read()
"#,
        python.display()
    );
    fs::create_dir_all(directory).unwrap();
    for function in FUNCTIONS {
        let path = directory.join(function);
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn the_template_deploys_and_its_functions_call_through_the_proxy() {
    let venv = install::ensure_installed(|line| eprintln!("{line}")).unwrap();
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(&venv, state.path(), Ipv4Addr::LOCALHOST, 0)
        .await
        .unwrap();
    let root = cloud.emulator.root();
    let binaries = state.path().join("binaries");
    let template = state.path().join("template.yaml");
    fs::copy(shipped_template(), &template).unwrap();
    functions(&binaries, &venv.join("bin/python"));
    let deployment = Deployment {
        venv: &venv,
        state: &state.path().join("deploy"),
        certificates: &cloud.certificates,
        endpoint_url: &cloud.proxy.url(),
        template: &template,
        binaries: &binaries,
        stack_name: "deploytest",
        parameters: &PARAMETERS,
    };

    let begun = Instant::now();
    let outputs = deployment
        .deploy(&root, cloud.proxy.principals())
        .await
        .unwrap();
    eprintln!("deployed in {:?}: {outputs:#?}", begun.elapsed());
    assert_eq!(
        outputs["ResumeQueueUrl"],
        format!(
            "{}/{}/deploytest-resume",
            cloud.proxy.url(),
            emulator::ACCOUNT
        )
    );
    let versions = root
        .launch_template_versions(&outputs["LaunchTemplateId"])
        .await
        .unwrap();
    assert!(versions.contains("<userData>"), "{versions}");

    a_function_calls_through_the_proxy(&cloud).await;

    // Deployed again without a change, then with a resource that cannot be made.
    assert_eq!(
        deployment
            .deploy(&root, cloud.proxy.principals())
            .await
            .unwrap(),
        outputs
    );
    let text = fs::read_to_string(&template).unwrap();
    let broken = "\nResources:\n  Broken:\n    Type: AWS::EFS::MountTarget\n    Properties: \
                  { FileSystemId: fs-none, SubnetId: subnet-none, SecurityGroups: [] }\n";
    fs::write(&template, text.replacen("\nResources:\n", broken, 1)).unwrap();
    let error = deployment
        .deploy(&root, cloud.proxy.principals())
        .await
        .unwrap_err()
        .to_string();
    eprintln!("{error}");
    assert!(
        error.contains("Broken: ") && error.contains("fs-none"),
        "{error}"
    );
    cloud.stop().await;
}

async fn a_function_calls_through_the_proxy(cloud: &Cloud) {
    let path = "/2015-03-31/functions/deploytest-launch/invocations";
    let answer = cloud
        .emulator
        .root()
        .rest("lambda", Method::POST, path, Bytes::from("{}"))
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let arn = answer["arn"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(arn.ends_with("/deploytest-launch"), "{answer}");
    assert_eq!(answer["endpoint"], cloud.proxy.url());
    // Functions inherit the emulator's environment, so that one must have nothing of ours.
    let environment = answer["environment"].as_array().unwrap();
    let is_ours = |name: &&Value| name.as_str().is_some_and(|name| name.starts_with("CARGO"));
    assert_eq!(environment.iter().find(is_ours), None);
    assert!(
        environment.contains(&Value::from("SSL_CERT_FILE")),
        "{environment:?}"
    );
    let calls = cloud.proxy.journal().calls().unwrap();
    let call = calls
        .iter()
        .find(|call| call.operation == "GetCallerIdentity")
        .unwrap();
    assert_eq!(call.principal, "deploytest-launch", "{call:?}");
}
