//! What the template must say and no emulator shows: there a wrong value deploys just as well.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spillway_checks::crates::Crates;
use spillway_checks::template::{Template, list, target};

const FUNCTION: &str = "AWS::Serverless::Function";
const LAUNCH_TEMPLATE: &str = "AWS::EC2::LaunchTemplate";

/// `cargo lambda build` makes a directory for each program; one that the template misspells is found by nobody
/// before the first deployment.
#[test]
fn every_function_is_a_program_of_this_workspace() -> Result<()> {
    let crates = Crates::read()?;
    for (id, function) in Template::read()?.of_type(FUNCTION) {
        let code = function["CodeUri"].as_str().context("no CodeUri")?;
        let program = code
            .strip_prefix("../../target/lambda/")
            .context("built elsewhere")?;
        assert!(
            crates.programs().contains(program),
            "{id}: nothing builds {program}"
        );
        let name = json!({"Fn::Sub": format!("${{ClusterName}}-{program}")});
        assert_eq!(function["FunctionName"], name, "{id}");
    }
    Ok(())
}

/// `callback` pins the document by this hash: with another one no command would ever be sent.
#[test]
fn the_document_is_the_one_whose_hash_is_pinned() -> Result<()> {
    let template = Template::read()?;
    let document = template.at("/Resources/ApplyDocument/Properties");
    assert!(
        document["Name"].is_null(),
        "a changed document must be a new one, of which there is a version 1 only"
    );
    let content = document["Content"]["Fn::Sub"]
        .as_str()
        .context("the content is no text")?;
    let hash = Sha256::digest(content);
    let hash = hash.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    assert_eq!(
        template.at("/Parameters/ApplyDocumentHash/Default"),
        &json!(hash)
    );
    let content: Value = serde_json::from_str(content)?;
    let envelope = &content["parameters"]["Envelope"];
    assert_eq!(envelope["interpolationType"], "ENV_VAR");
    let inputs = &content["mainSteps"][0]["inputs"];
    assert_eq!(
        inputs,
        &json!({"timeoutSeconds": "30", "runCommand": ["/usr/bin/spillway apply"]})
    );
    Ok(())
}

#[test]
fn every_function_has_a_role_and_a_log_of_its_own() -> Result<()> {
    let template = Template::read()?;
    for (id, function) in template.of_type(FUNCTION) {
        let name = id
            .strip_suffix("Function")
            .context("a function's id ends so")?;
        assert_eq!(
            target(&function["Role"]),
            Some(format!("{name}Role").as_str())
        );
        let log = format!("{name}LogGroup");
        assert_eq!(
            target(&function["LoggingConfig"]["LogGroup"]),
            Some(log.as_str())
        );
        let retention = template.at(&format!("/Resources/{log}/Properties/RetentionInDays"));
        assert_eq!(retention, &json!({"Ref": "LogRetentionDays"}));
        let trusted = template.at(&format!(
            "/Resources/{name}Role/Properties/AssumeRolePolicyDocument/Statement/0/Principal"
        ));
        assert_eq!(trusted, &json!({"Service": "lambda.amazonaws.com"}));
    }
    Ok(())
}

#[test]
fn burst_nodes_guard_their_metadata_and_carry_no_key() -> Result<()> {
    let template = Template::read()?;
    for (id, properties) in template.of_type(LAUNCH_TEMPLATE) {
        let data = &properties["LaunchTemplateData"];
        assert_eq!(
            data["MetadataOptions"],
            json!({"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"}),
            "{id}"
        );
        assert!(data["KeyName"].is_null(), "{id}");
        assert_eq!(
            data["InstanceInitiatedShutdownBehavior"], "terminate",
            "{id}"
        );
        let mut volumes = list(&data["BlockDeviceMappings"]).peekable();
        assert!(
            volumes.peek().is_some() && volumes.all(|volume| volume["Ebs"]["Encrypted"] == true),
            "{id}"
        );
    }
    Ok(())
}

/// Every process of the instance that may read its metadata reads its user data.
#[test]
fn user_data_watches_and_joins_and_holds_no_secret() -> Result<()> {
    const SECRET_WORDS: [&str; 9] = [
        "secret",
        "password",
        "token",
        "credential",
        "private",
        "munge",
        "aws_access",
        "ssm",
        "-----begin",
    ];
    let template = Template::read()?;
    for (id, properties) in template.of_type(LAUNCH_TEMPLATE) {
        let script = properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"][0]
            .as_str()
            .context("no user data")?;
        assert!(script.starts_with("#!/bin/bash\n"), "{id}");
        let options = " --cluster ${ClusterName} --region ${AWS::Region} --table ${Table} \
                       --reports-queue ${ReportsQueue}${Options}";
        let [watch, join] = script.lines().skip(1).collect::<Vec<_>>()[..] else {
            bail!("the user data of {id} is of other lines: {script}");
        };
        assert_eq!(join, format!("exec /usr/bin/spillway node join{options}"));
        assert!(
            watch.starts_with("systemd-run --unit=spillway-watch "),
            "{id}"
        );
        let command = format!(" /usr/bin/spillway node watch{options}");
        assert!(watch.ends_with(&command), "{id}: {watch}");
        // What turns itself off is to be gone, not stopped.
        let shutdown = &properties["LaunchTemplateData"]["InstanceInitiatedShutdownBehavior"];
        assert_eq!(shutdown, "terminate", "{id}");
        let lower = script.to_lowercase();
        for word in SECRET_WORDS {
            assert!(
                !lower.contains(word),
                "the user data of {id} speaks of {word}"
            );
        }
    }
    // What the operator types ends up in that script.
    let allowed = template
        .at("/Parameters/SlurmdOptions/AllowedPattern")
        .as_str()
        .context("no pattern")?;
    for active in [
        '$', '`', ';', '&', '|', '<', '>', '(', ')', '\'', '"', '\\', '\n',
    ] {
        assert!(
            !allowed.trim_end_matches('$').contains(active),
            "SlurmdOptions may hold {active:?}"
        );
    }
    Ok(())
}
