//! `sweep`: what went wrong and no event told of is found by comparing EC2, the table and slurmctld, and healed.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use spillway_aws::{DynamoTable, Home, QueueUrls, SqsQueues, sdk_config};
use spillway_control::ports::Control;
use spillway_control::sweep::sweep;
use spillway_core::message::SweepQueueBody;
use spillway_ec2::Ec2Client;
use spillway_runtime::{Environment, Invocation, Sent, SystemClock, handle_messages, start_logs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_logs();
    let environment = Environment::read()?;
    let config = sdk_config().await;
    let dynamo = &DynamoTable::client(&config);
    let ec2 = &Ec2Client::new(&config);
    let (cluster, table) = (&environment.cluster, &environment.table);
    let urls = QueueUrls {
        resume: environment.resume_queue_url,
        suspend: environment.suspend_queue_url,
        dead_letter: environment.dead_letter_queue_url,
        ..QueueUrls::default()
    };
    let queues = &SqsQueues::new(SqsQueues::client(&config), cluster.clone(), urls);
    DynamoTable::warm(dynamo, table, cluster).await;
    run(service_fn(|event: LambdaEvent<SqsEvent>| async move {
        let invocation = &Invocation::new("sweep", cluster, &event.context);
        let home = Home::of_function(&event.context.invoked_function_arn)?;
        let table = DynamoTable::new(dynamo.clone(), table.clone(), cluster.clone(), home);
        let control = &Control {
            cluster: cluster.clone(),
            table,
            queues: queues.clone(),
            clock: SystemClock,
        };
        let quarantine = async |body: &str, reason: &str| queues.quarantine(body, reason).await;
        let work = async |body, _: Sent| match body {
            SweepQueueBody::Sweep(order) => {
                Ok(sweep(control, ec2, order, invocation.budget()).await?)
            }
        };
        Ok::<SqsBatchResponse, Error>(
            handle_messages(invocation, event.payload, quarantine, work).await,
        )
    }))
    .await
}
