//! The proxy in front of the real emulator, called by boto3 and the AWS CLI, which sign as AWS's own.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use spillway_lab::{
    cloud::Cloud,
    emulator::{self, root::Credentials},
    faults::{Action, Fault},
    install,
    journal::Call,
};
use tempfile::TempDir;
use tokio::process::Command;

/// The emulator and the proxy on loopback, with nothing deployed.
struct Bench {
    cloud: Cloud,
    venv: PathBuf,
    state: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let venv = install::ensure_installed(|line| eprintln!("{line}")).unwrap();
        let state = tempfile::tempdir().unwrap();
        let cloud = Cloud::start(&venv, state.path(), Ipv4Addr::LOCALHOST, 0)
            .await
            .unwrap();
        Self { cloud, venv, state }
    }

    /// A user known to the journal by its name, with one inline policy.
    async fn user(&self, name: &str, statements: Value) -> Credentials {
        let root = self.cloud.emulator.root();
        let credentials = root.create_user(name, &[]).await.unwrap();
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let parameters = [
            ("UserName", name),
            ("PolicyName", "p"),
            ("PolicyDocument", &policy),
        ];
        root.iam("PutUserPolicy", &parameters).await.unwrap();
        self.cloud
            .proxy
            .principals()
            .register(&credentials.access_key_id, name);
        credentials
    }

    /// A queue that refuses whoever comes without TLS, as all of ours do; its URL.
    async fn tls_only_queue(&self, name: &str) -> String {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }]});
        let body = json!({"QueueName": name, "Attributes": {"Policy": policy.to_string()}});
        let root = self.cloud.emulator.root();
        let answer = root
            .json("sqs", "AmazonSQS.CreateQueue", &body)
            .await
            .unwrap();
        answer["QueueUrl"].as_str().unwrap().to_owned()
    }

    async fn messages_in(&self, queue_url: &str) -> u64 {
        let attributes = self
            .cloud
            .emulator
            .root()
            .queue_attributes(queue_url)
            .await
            .unwrap();
        let count = attributes["ApproximateNumberOfMessages"].as_str().unwrap();
        count.parse().unwrap()
    }

    fn tool(&self, program: &str, who: &Credentials) -> Command {
        self.command(&self.venv.join("bin").join(program), who)
    }

    fn command(&self, program: &Path, who: &Credentials) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.state.path())
            .env("AWS_ENDPOINT_URL", self.cloud.proxy.url())
            .env("AWS_CA_BUNDLE", &self.cloud.certificates.bundle)
            .env("AWS_REGION", emulator::REGION)
            .env("AWS_DEFAULT_REGION", emulator::REGION)
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_ACCESS_KEY_ID", &who.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &who.secret_access_key)
            .kill_on_drop(true);
        if let Some(token) = &who.session_token {
            command.env("AWS_SESSION_TOKEN", token);
        }
        command
    }

    /// One call by boto3: the answer, or `{"error": code}`, `{"error": the exception's name}`.
    async fn boto3(
        &self,
        who: &Credentials,
        service: &str,
        method: &str,
        arguments: Value,
    ) -> Value {
        const SCRIPT: &str = "
import boto3, botocore, json, sys
service, method, arguments = sys.argv[1:]
config = botocore.config.Config(retries={'total_max_attempts': 1}, read_timeout=20)
try:
    answer = getattr(boto3.client(service, config=config), method)(**json.loads(arguments))
    answer.pop('ResponseMetadata')
except botocore.exceptions.ClientError as error:
    answer = {'error': error.response['Error']['Code'], 'message': error.response['Error']['Message']}
except Exception as error:
    answer = {'error': type(error).__name__, 'message': str(error)}
print(json.dumps(answer, default=str))
";
        let output = self
            .tool("python", who)
            .args(["-c", SCRIPT, service, method, &arguments.to_string()])
            .output()
            .await
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn calls(&self, operation: &str) -> Vec<Call> {
        let mut calls = self.cloud.proxy.journal().calls().unwrap();
        calls.retain(|call| call.operation == operation);
        calls
    }

    fn arm(&self, operation: &str, times: u64, action: Action) -> String {
        self.cloud
            .proxy
            .faults()
            .arm(Fault {
                id: None,
                service: "sqs".to_owned(),
                operation: Some(operation.to_owned()),
                principal: Some("head".to_owned()),
                body_contains: None,
                times: Some(times),
                action,
            })
            .unwrap()
    }
}

fn allow(action: &str) -> Value {
    json!([{"Effect": "Allow", "Action": action, "Resource": "*"}])
}

#[tokio::test]
async fn signatures_and_policies_hold_through_the_proxy_and_calls_are_recorded() {
    let bench = Bench::start().await;
    let queue = bench.tls_only_queue("resume").await;
    assert_eq!(
        queue,
        format!("{}/000000000000/resume", bench.cloud.proxy.url())
    );
    let head = bench.user("head", allow("sqs:SendMessage")).await;
    let message = json!({"QueueUrl": queue, "MessageBody": "hello"});

    let sent = bench
        .boto3(&head, "sqs", "send_message", message.clone())
        .await;
    assert!(sent["MessageId"].is_string(), "{sent}");
    assert_eq!(bench.messages_in(&queue).await, 1);

    // A batch needs the single call's permission, as on AWS, and no other.
    let entries = json!([{"Id": "1", "MessageBody": "a"}, {"Id": "2", "MessageBody": "b"}]);
    let batch = json!({"QueueUrl": queue, "Entries": entries});
    let sent = bench
        .boto3(&head, "sqs", "send_message_batch", batch.clone())
        .await;
    assert_eq!(
        sent["Successful"].as_array().map(Vec::len),
        Some(2),
        "{sent}"
    );
    let reader = bench.user("reader", allow("sqs:ReceiveMessage")).await;
    let refused = bench
        .boto3(&reader, "sqs", "send_message_batch", batch)
        .await;
    assert_eq!(refused["error"], "AccessDenied", "{refused}");

    // Not allowed, and allowed but wrongly signed.
    let refused = bench
        .boto3(&head, "sqs", "receive_message", json!({"QueueUrl": queue}))
        .await;
    assert_eq!(refused["error"], "AccessDenied", "{refused}");
    let forger = Credentials {
        secret_access_key: "wrong".to_owned(),
        ..head.clone()
    };
    let refused = bench.boto3(&forger, "sqs", "send_message", message).await;
    assert_eq!(refused["error"], "SignatureDoesNotMatch", "{refused}");

    let calls = bench.calls("SendMessage");
    assert_eq!(calls.len(), 2, "{calls:?}");
    let first = &calls[0];
    assert_eq!(
        (first.service.as_str(), first.principal.as_str()),
        ("sqs", "head")
    );
    assert_eq!((first.status, first.error_code.as_deref()), (200, None));
    assert!(first.request_bytes > 0 && first.response_bytes > 0 && first.at_ms > 1_700_000_000_000);
    assert!(
        calls[1].status >= 400 && calls[1].error_code.is_some(),
        "{:?}",
        calls[1]
    );
    let denied = &bench.calls("ReceiveMessage")[0];
    assert_eq!(
        denied.error_code.as_deref(),
        Some("AccessDeniedException"),
        "{denied:?}"
    );
    bench.cloud.stop().await;
}

#[tokio::test]
async fn callers_are_named_by_session_and_the_cli_works_too() {
    let bench = Bench::start().await;
    let root = bench.cloud.emulator.root();
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]});
    let trust = trust.to_string();
    let parameters = [
        ("RoleName", "node"),
        ("AssumeRolePolicyDocument", trust.as_str()),
    ];
    root.iam("CreateRole", &parameters).await.unwrap();
    let operator = bench.user("operator", allow("*")).await;

    let role = "arn:aws:iam::000000000000:role/node";
    let arguments = json!({"RoleArn": role, "RoleSessionName": "i-0123"});
    let session = bench
        .boto3(&operator, "sts", "assume_role", arguments)
        .await;
    let text = |key: &str| session["Credentials"][key].as_str().unwrap().to_owned();
    let node = Credentials {
        access_key_id: text("AccessKeyId"),
        secret_access_key: text("SecretAccessKey"),
        session_token: Some(text("SessionToken")),
        expiration: None,
    };
    let output = bench
        .tool("aws", &node)
        .args(["sts", "get-caller-identity", "--output", "json"])
        .output()
        .await
        .unwrap();
    let identity: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(
        identity["Arn"],
        "arn:aws:sts::000000000000:assumed-role/node/i-0123"
    );
    assert_eq!(bench.calls("GetCallerIdentity")[0].principal, "i-0123");

    // The CLI has an address of its own in mind for SQS; the command that the lab gives to people has not.
    bench.tls_only_queue("resume").await;
    let directory = bench.state.path().join("bin");
    install::write_aws_command(&bench.venv, &directory).unwrap();
    let output = bench
        .command(&directory.join("aws"), &operator)
        .args(["sqs", "get-queue-url", "--queue-name", "resume"])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(bench.calls("GetQueueUrl")[0].principal, "operator");

    bench.cloud.stop().await;
}

#[tokio::test]
async fn s3_works_which_has_no_operation_names_and_streams_and_asks_with_head() {
    let bench = Bench::start().await;
    let operator = bench.user("operator", allow("*")).await;
    let body = json!({"Bucket": "zips"});
    bench.boto3(&operator, "s3", "create_bucket", body).await;
    let file = bench.state.path().join("upload");
    std::fs::write(&file, vec![b'x'; 12_000_000]).unwrap();
    let copied = bench
        .tool("aws", &operator)
        .args(["s3", "cp", "--no-progress"])
        .arg(&file)
        .arg("s3://zips/key")
        .output()
        .await
        .unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    let arguments = json!({"Bucket": "zips", "Key": "key"});
    let head = bench.boto3(&operator, "s3", "head_object", arguments).await;
    assert_eq!(head["ContentLength"], 12_000_000, "{head}");
    assert_eq!(bench.calls("HEAD /zips/key")[0].service, "s3");
    bench.cloud.stop().await;
}

#[tokio::test]
async fn every_fault_does_what_it_says_and_is_counted() {
    let bench = Bench::start().await;
    let queue = bench.tls_only_queue("resume").await;
    let head = bench.user("head", allow("sqs:*")).await;
    let message = json!({"QueueUrl": queue, "MessageBody": "hello"});
    let send = async || {
        let begun = Instant::now();
        let answer = bench
            .boto3(&head, "sqs", "send_message", message.clone())
            .await;
        (answer, begun.elapsed())
    };

    let refuse = Action::Refuse {
        status: 400,
        code: "RequestThrottled".to_owned(),
        message: "slow down".to_owned(),
    };
    let id = bench.arm("SendMessage", 2, refuse);
    assert_eq!(send().await.0["error"], "RequestThrottled");
    assert_eq!(send().await.0["message"], "slow down");
    assert_eq!(bench.messages_in(&queue).await, 0);
    assert!(send().await.0["MessageId"].is_string());
    assert_eq!(bench.messages_in(&queue).await, 1);
    assert_eq!(bench.cloud.proxy.faults().fired(&id), 2);
    let recorded: Vec<_> = bench
        .calls("SendMessage")
        .into_iter()
        .map(|call| call.fault)
        .collect();
    assert_eq!(recorded, [Some(id.clone()), Some(id), None]);

    // Done all the same, though the caller cannot know.
    bench.arm("SendMessage", 1, Action::LoseAnswer {});
    let (answer, _) = send().await;
    assert_eq!(answer["error"], "ConnectionClosedError", "{answer}");
    assert_eq!(bench.messages_in(&queue).await, 2);
    assert_eq!(bench.calls("SendMessage")[3].status, 200);

    bench.arm("SendMessage", 1, Action::DelayMs(1500));
    let (answer, took) = send().await;
    assert!(
        answer["MessageId"].is_string() && took > Duration::from_millis(1500),
        "{took:?}"
    );
    assert!(bench.calls("SendMessage")[4].duration_ms >= 1500);

    // Not done.
    bench.arm("SendMessage", 1, Action::HangMs(1500));
    let (answer, took) = send().await;
    assert_eq!(answer["error"], "ConnectionClosedError", "{answer}");
    assert!(took > Duration::from_millis(1500), "{took:?}");
    assert_eq!(bench.messages_in(&queue).await, 3);

    // Done, and as long without an answer.
    bench.arm("SendMessage", 1, Action::HangAnswerMs(1500));
    let (answer, took) = send().await;
    assert_eq!(answer["error"], "ConnectionClosedError", "{answer}");
    assert!(took > Duration::from_millis(1500), "{took:?}");
    assert_eq!(bench.messages_in(&queue).await, 4);

    let replace = Action::Replace {
        from: r#""MessageId": ?"[^"]*""#.to_owned(),
        to: r#""MessageId": "another""#.to_owned(),
    };
    bench.arm("SendMessage", 1, replace);
    assert_eq!(send().await.0["MessageId"], "another");
    assert_eq!(bench.messages_in(&queue).await, 5);
    bench.cloud.stop().await;
}

#[tokio::test]
async fn a_refusal_is_understood_in_every_protocol() {
    let bench = Bench::start().await;
    let operator = bench.user("operator", allow("*")).await;
    let calls = [
        ("ec2", "describe_instances", json!({})),
        ("iam", "list_users", json!({})),
        ("dynamodb", "list_tables", json!({})),
        ("lambda", "list_functions", json!({})),
        ("s3", "list_buckets", json!({})),
    ];
    for (service, method, arguments) in calls {
        let fault = Fault {
            id: None,
            service: service.to_owned(),
            operation: None,
            principal: None,
            body_contains: None,
            times: Some(1),
            action: Action::Refuse {
                status: 400,
                code: "Throttled<&>".to_owned(),
                message: "a < b".to_owned(),
            },
        };
        bench.cloud.proxy.faults().arm(fault).unwrap();
        let refused = bench.boto3(&operator, service, method, arguments).await;
        assert_eq!(refused["error"], "Throttled<&>", "{service}: {refused}");
        assert_eq!(refused["message"], "a < b", "{service}: {refused}");
    }
    let codes: Vec<_> = bench.cloud.proxy.journal().calls().unwrap();
    assert!(
        codes
            .iter()
            .all(|call| call.error_code.as_deref() == Some("Throttled<&>"))
    );
    bench.cloud.stop().await;
}

#[tokio::test]
async fn a_service_can_be_served_elsewhere_and_sees_the_request_as_it_was_signed() {
    let bench = Bench::start().await;
    let operator = bench.user("operator", allow("*")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    bench
        .cloud
        .proxy
        .route("ec2", listener.local_addr().unwrap());
    let answer = async |headers: HeaderMap, body: String| {
        let host = headers["host"].to_str().unwrap();
        assert!(headers.contains_key("authorization") && body.contains("Action=DescribeVpcs"));
        format!(
            "<DescribeVpcsResponse><vpcSet><item><vpcId>{host}</vpcId></item></vpcSet>\
             </DescribeVpcsResponse>"
        )
    };
    let server =
        tokio::spawn(
            async move { axum::serve(listener, axum::Router::new().fallback(answer)).await },
        );
    let vpcs = bench
        .boto3(&operator, "ec2", "describe_vpcs", json!({}))
        .await;
    assert_eq!(
        vpcs["Vpcs"][0]["VpcId"],
        bench.cloud.proxy.address().to_string(),
        "{vpcs}"
    );
    // And without it the caller is told, not left waiting.
    server.abort();
    let _ = server.await;
    let failed = bench
        .boto3(&operator, "ec2", "describe_vpcs", json!({}))
        .await;
    assert_eq!(failed["error"], "BadGateway", "{failed}");
    bench.cloud.stop().await;
}

#[tokio::test]
async fn what_was_asked_is_done_though_the_caller_dies_meanwhile() {
    let bench = Bench::start().await;
    let queue = bench.tls_only_queue("resume").await;
    let head = bench.user("head", allow("sqs:*")).await;
    let message = json!({"QueueUrl": queue, "MessageBody": "hello"});
    let id = bench.arm("SendMessage", 1, Action::DelayMs(1000));
    let caller = bench.boto3(&head, "sqs", "send_message", message);
    tokio::select! {
        answer = caller => panic!("{answer}"),
        // The caller is killed as soon as the proxy has its request.
        () = until(|| bench.cloud.proxy.faults().fired(&id) == 1) => {}
    }
    until(|| bench.calls("SendMessage").len() == 1).await;
    assert_eq!(bench.calls("SendMessage")[0].status, 200);
    assert_eq!(bench.messages_in(&queue).await, 1);
    bench.cloud.stop().await;
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn faults_are_armed_listed_and_disarmed_over_the_control_port() {
    let bench = Bench::start().await;
    let queue = bench.tls_only_queue("resume").await;
    let head = bench.user("head", allow("sqs:*")).await;
    let faults = format!("{}/faults", bench.cloud.proxy.control_url());

    let fault = json!({"service": "sqs", "operation": "SendMessage", "match": "poison", "times": 5,
        "action": {"refuse": {"status": 403, "code": "Poisoned", "message": ""}}});
    let armed = control(Method::POST, &faults, fault).await;
    let send = async |body: &str| {
        let message = json!({"QueueUrl": queue, "MessageBody": body});
        bench.boto3(&head, "sqs", "send_message", message).await
    };
    assert!(send("clean").await["MessageId"].is_string());
    assert_eq!(send("poison").await["error"], "Poisoned");
    let listed = control(Method::GET, &faults, Value::Null).await;
    assert_eq!(
        (&listed[0]["id"], &listed[0]["fired"]),
        (&armed["id"], &json!(1))
    );

    let one = format!("{faults}/{}", armed["id"].as_str().unwrap());
    control(Method::DELETE, &one, Value::Null).await;
    assert_eq!(control(Method::GET, &faults, Value::Null).await, json!([]));
    assert!(send("poison").await["MessageId"].is_string());

    let wrong = json!({"service": "sqs", "action": {"replace": {"from": "(", "to": ""}}});
    let refused = control(Method::POST, &faults, wrong).await;
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("regular expression")
    );
    bench.cloud.stop().await;
}

/// A request to the control port, and its JSON answer (null where it has none).
async fn control(method: Method, url: &str, body: Value) -> Value {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let answer = client.request(request).await.unwrap().into_body();
    let answer = answer.collect().await.unwrap().to_bytes();
    serde_json::from_slice(&answer).unwrap_or(Value::Null)
}

#[tokio::test]
async fn stopping_leaves_no_process_behind() {
    let bench = Bench::start().await;
    let state = bench.state.path().to_owned();
    assert!(!processes_in(&state).is_empty());
    bench.cloud.stop().await;
    assert_eq!(processes_in(&state), Vec::<String>::new());
}

/// The ids of the processes that work in a directory or below it.
fn processes_in(directory: &Path) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
