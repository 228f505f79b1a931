//! SQS and SSM as far as the client uses them, in memory: real HTTP, their JSON protocol, visibility, and what
//! they were asked.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a received message stays hidden: short, so that what is left comes again within a test.
const VISIBILITY: Duration = Duration::from_secs(2);

/// A message on a queue.
struct Message {
    id: String,
    body: String,
    /// Hidden until then.
    visible: Instant,
    receives: usize,
}

/// A parameter.
#[derive(Clone)]
pub struct Parameter {
    pub value: String,
    pub kind: String,
}

#[derive(Default)]
struct State {
    queues: HashMap<String, Vec<Message>>,
    parameters: BTreeMap<String, Parameter>,
    asked: Vec<String>,
    refuses_sends: bool,
    next_id: u64,
}

/// The service; it lives as long as the process.
#[derive(Clone)]
pub struct Aws {
    pub port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Aws {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let aws = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let service = aws.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let service = service.clone();
                // A client that goes away ends its thread.
                std::thread::spawn(move || service.serve(stream.unwrap()));
            }
        });
        aws
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Puts a message on a queue; its id.
    pub fn put(&self, queue: &str, body: &str) -> String {
        let mut state = self.state();
        state.next_id += 1;
        let id = format!("m{}", state.next_id);
        let message = Message {
            id: id.clone(),
            body: body.to_owned(),
            visible: Instant::now(),
            receives: 0,
        };
        state
            .queues
            .entry(queue.to_owned())
            .or_default()
            .push(message);
        self.shared.1.notify_all();
        id
    }

    /// The bodies on a queue, hidden or not.
    pub fn bodies(&self, queue: &str) -> Vec<String> {
        let state = self.state();
        let messages = state.queues.get(queue).into_iter().flatten();
        messages.map(|message| message.body.clone()).collect()
    }

    /// How often each message that is still on a queue was received.
    pub fn receives(&self, queue: &str) -> Vec<usize> {
        let state = self.state();
        let messages = state.queues.get(queue).into_iter().flatten();
        messages.map(|message| message.receives).collect()
    }

    /// The bodies of reports of one kind.
    pub fn reports(&self, kind: &str) -> Vec<Value> {
        self.bodies("try-reports")
            .iter()
            .map(|body| serde_json::from_str::<Value>(body).unwrap()["body"].take())
            .filter(|body| body["kind"] == kind)
            .collect()
    }

    /// Whether an operation was asked for.
    pub fn was_asked(&self, operation: &str) -> bool {
        self.state().asked.iter().any(|asked| asked == operation)
    }

    pub fn refuse_sends(&self, refuses: bool) {
        self.state().refuses_sends = refuses;
    }

    pub fn parameters(&self) -> BTreeMap<String, Parameter> {
        self.state().parameters.clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut operation, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim();
                let Some((name, value)) = line.split_once(':') else {
                    if line.is_empty() {
                        break;
                    }
                    continue;
                };
                match name.to_lowercase().as_str() {
                    "x-amz-target" => {
                        operation = value.rsplit('.').next().unwrap().to_string();
                    }
                    "content-length" => length = value.trim().parse().unwrap(),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body: Value = serde_json::from_slice(&body).unwrap();
            let (status, answer) = match self.answer(&operation, &body) {
                Ok(answer) => ("200 OK", answer),
                Err(code) => ("400 Bad Request", json!({"__type": code, "message": "no"})),
            };
            let text = answer.to_string();
            let head = "content-type: application/x-amz-json-1.1";
            let length = text.len();
            let answer =
                format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{text}");
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    }

    fn answer(&self, operation: &str, body: &Value) -> Result<Value, &'static str> {
        self.state().asked.push(operation.to_owned());
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let queue = || text("QueueUrl").rsplit('/').next().unwrap().to_owned();
        match operation {
            "SendMessage" if self.state().refuses_sends => Err("ServiceUnavailable"),
            "SendMessage" => {
                let id = self.put(&queue(), &text("MessageBody"));
                Ok(json!({"MessageId": id, "MD5OfMessageBody": "0"}))
            }
            "ReceiveMessage" => Ok(self.receive(&queue(), body)),
            "DeleteMessageBatch" => {
                let entries = body["Entries"].as_array().unwrap();
                let is_deleted =
                    |id: &str| entries.iter().any(|entry| entry["ReceiptHandle"] == id);
                let mut state = self.state();
                let messages = state.queues.entry(queue()).or_default();
                messages.retain(|message| !is_deleted(&message.id));
                let done: Vec<_> = entries
                    .iter()
                    .map(|entry| json!({"Id": entry["Id"]}))
                    .collect();
                Ok(json!({"Successful": done, "Failed": []}))
            }
            "PutParameter" => {
                let overwrites = body["Overwrite"] == true;
                let parameter = Parameter {
                    value: text("Value"),
                    kind: text("Type"),
                };
                let mut state = self.state();
                if state.parameters.contains_key(&text("Name")) && !overwrites {
                    return Err("ParameterAlreadyExists");
                }
                state.parameters.insert(text("Name"), parameter);
                Ok(json!({"Version": 1}))
            }
            "GetParameter" => match self.state().parameters.get(&text("Name")) {
                None => Err("ParameterNotFound"),
                Some(parameter) => {
                    let is_sealed =
                        parameter.kind == "SecureString" && body["WithDecryption"] != true;
                    let value = if is_sealed {
                        "sealed"
                    } else {
                        &parameter.value
                    };
                    Ok(json!({"Parameter": {"Name": text("Name"), "Value": value}}))
                }
            },
            "GetParametersByPath" => {
                let state = self.state();
                let path = text("Path");
                let below = state
                    .parameters
                    .keys()
                    .filter(|name| name.starts_with(&path));
                let listed: Vec<_> = below
                    .enumerate()
                    .map(|(index, name)| json!({"Name": name, "LastModifiedDate": 1_790_000_000 + index}))
                    .collect();
                Ok(json!({"Parameters": listed}))
            }
            "DeleteParameter" => match self.state().parameters.remove(&text("Name")) {
                None => Err("ParameterNotFound"),
                Some(_) => Ok(json!({})),
            },
            _ => Err("UnknownOperation"),
        }
    }

    /// Waits for messages as a long poll does.
    fn receive(&self, queue: &str, body: &Value) -> Value {
        let wait = Duration::from_secs(body["WaitTimeSeconds"].as_u64().unwrap_or(0));
        let end = Instant::now() + wait;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let messages = state.queues.entry(queue.to_owned()).or_default();
            let visible = messages.iter_mut().filter(|message| message.visible <= now);
            let taken: Vec<Value> = visible
                .take(10)
                .map(|message| {
                    message.visible = now + VISIBILITY;
                    message.receives += 1;
                    json!({"MessageId": message.id, "ReceiptHandle": message.id, "Body": message.body})
                })
                .collect();
            if !taken.is_empty() || now >= end {
                return json!({ "Messages": taken });
            }
            // Also for those that become visible again.
            let pause = Duration::from_millis(100).min(end - now);
            state = self.shared.1.wait_timeout(state, pause).unwrap().0;
        }
    }
}
