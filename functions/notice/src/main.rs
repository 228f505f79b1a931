//! `notice`: what AWS says of instances that are about to go, or are gone.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use spillway_aws::{DynamoTable, Home, QueueUrls, SqsQueues, sdk_config};
use spillway_control::notice::notices;
use spillway_control::ports::Control;
use spillway_core::notice::Notice;
use spillway_ec2::Ec2Client;
use spillway_runtime::{Environment, Invocation, SystemClock, handle_together, start_logs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_logs();
    let environment = Environment::read()?;
    let config = sdk_config().await;
    let dynamo = &DynamoTable::client(&config);
    let ec2 = &Ec2Client::new(&config);
    let (cluster, table) = (&environment.cluster, &environment.table);
    let urls = QueueUrls {
        suspend: environment.suspend_queue_url,
        reports: environment.reports_queue_url,
        dead_letter: environment.dead_letter_queue_url,
        ..QueueUrls::default()
    };
    let queues = &SqsQueues::new(SqsQueues::client(&config), cluster.clone(), urls);
    DynamoTable::warm(dynamo, table, cluster).await;
    run(service_fn(|event: LambdaEvent<SqsEvent>| async move {
        let invocation = &Invocation::new("notice", cluster, &event.context);
        let home = Home::of_function(&event.context.invoked_function_arn)?;
        let table = DynamoTable::new(dynamo.clone(), table.clone(), cluster.clone(), home);
        let control = &Control {
            cluster: cluster.clone(),
            table,
            queues: queues.clone(),
            clock: SystemClock,
        };
        let quarantine = async |body: &str, reason: &str| queues.quarantine(body, reason).await;
        let work = async |batch| notices(control, ec2, batch).await;
        Ok::<SqsBatchResponse, Error>(
            Box::pin(handle_together(
                invocation,
                event.payload,
                quarantine,
                Notice::parse,
                work,
            ))
            .await,
        )
    }))
    .await
}
