//! `report`: acknowledgements, signs of life, nodes that joined or cannot, and timers.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use spillway_aws::{DynamoTable, Home, QueueUrls, SqsQueues, SsmOutcomes, sdk_config, ssm_client};
use spillway_control::ports::Control;
use spillway_control::report::{ReportError, report};
use spillway_control::sender::Sender;
use spillway_runtime::{Environment, Invocation, Sent, SystemClock, handle_messages, start_logs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_logs();
    let environment = Environment::read()?;
    let config = sdk_config().await;
    let dynamo = &DynamoTable::client(&config);
    let (cluster, table) = (&environment.cluster, &environment.table);
    let burst_node_role = &environment.required_burst_node_role_id()?;
    let urls = QueueUrls {
        suspend: environment.suspend_queue_url,
        reports: environment.reports_queue_url,
        dead_letter: environment.dead_letter_queue_url,
        ..QueueUrls::default()
    };
    let queues = &SqsQueues::new(SqsQueues::client(&config), cluster.clone(), urls);
    let outcomes = &SsmOutcomes(ssm_client(&config));
    DynamoTable::warm(dynamo, table, cluster).await;
    run(service_fn(|event: LambdaEvent<SqsEvent>| async move {
        let invocation = &Invocation::new("report", cluster, &event.context);
        let home = Home::of_function(&event.context.invoked_function_arn)?;
        let table = DynamoTable::new(dynamo.clone(), table.clone(), cluster.clone(), home);
        let control = &Control {
            cluster: cluster.clone(),
            table,
            queues: queues.clone(),
            clock: SystemClock,
        };
        let quarantine = async |body: &str, reason: &str| queues.quarantine(body, reason).await;
        let work = async |body, sent: Sent| {
            let sender = Sender::of(&sent.sender_id, burst_node_role).map_err(ReportError::from)?;
            Ok(report(control, outcomes, body, sent.at_ms, &sender).await?)
        };
        Ok::<SqsBatchResponse, Error>(
            handle_messages(invocation, event.payload, quarantine, work).await,
        )
    }))
    .await
}
