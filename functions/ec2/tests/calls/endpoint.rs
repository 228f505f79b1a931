//! An HTTP endpoint on loopback that writes down what it is asked and answers what the test says: it shows
//! the very bytes that would reach EC2.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::config::{Credentials, Region};
use spillway_ec2::Ec2Client;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The parameters of one call, by name.
pub type Call = BTreeMap<String, String>;

/// The calls made so far.
pub type Calls = Arc<Mutex<Vec<Call>>>;

/// A client whose calls are written down and answered by `answer`: HTTP status and XML. It tries once.
pub async fn client(
    answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
) -> (Ec2Client, Calls) {
    client_with(RetryConfig::disabled(), answer).await
}

/// The same with three tries, as the functions have them, but without the wait between.
pub async fn client_of_three_tries(
    answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
) -> (Ec2Client, Calls) {
    let retries = RetryConfig::standard().with_max_attempts(3);
    let quick = retries.with_initial_backoff(Duration::from_millis(1));
    client_with(quick, answer).await
}

async fn client_with(
    retries: RetryConfig,
    answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
) -> (Ec2Client, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let written = Arc::clone(&calls);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &written, &answer).await;
        }
    });
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "test"))
        .retry_config(retries)
        .load()
        .await;
    (Ec2Client::new(&config), calls)
}

async fn serve(stream: TcpStream, calls: &Calls, answer: &impl Fn(&Call) -> (u16, String)) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let call: Call = form_urlencoded::parse(&body).into_owned().collect();
    let (status, xml) = answer(&call);
    calls.lock().unwrap().push(call);
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        xml.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(xml.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// EC2's way to say no.
pub fn refusal(code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (
        400,
        format!("<Response><Errors>{error}</Errors><RequestID>r-1</RequestID></Response>"),
    )
}

/// An answer to `operation` with `content`.
pub fn answered(operation: &str, content: &str) -> (u16, String) {
    let xmlns = "http://ec2.amazonaws.com/doc/2016-11-15/";
    (
        200,
        format!(
            r#"<{operation}Response xmlns="{xmlns}"><requestId>r-1</requestId>{content}</{operation}Response>"#
        ),
    )
}

/// The values of `call` whose names begin with `prefix`, by the rest of the name.
pub fn under<'a>(call: &'a Call, prefix: &str) -> BTreeMap<&'a str, &'a str> {
    call.iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
        .collect()
}
