//! `callback`: changes of node items in the table become updates for slurmctld.

use aws_lambda_events::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use spillway_aws::{
    DynamoTable, Home, QueueUrls, SqsQueues, SsmCommands, SsmKeys, sdk_config, ssm_client,
};
use spillway_control::deliver::deliver;
use spillway_control::ports::Control;
use spillway_control::roads::Roads;
use spillway_runtime::{Environment, Invocation, SystemClock, handle_changes, start_logs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_logs();
    let environment = Environment::read()?;
    let config = sdk_config().await;
    let dynamo = &DynamoTable::client(&config);
    let (cluster, table) = (&environment.cluster, &environment.table);
    let has_queue = environment.updates_queue_url.is_some();
    let urls = QueueUrls {
        reports: environment.reports_queue_url,
        updates: environment.updates_queue_url,
        ..QueueUrls::default()
    };
    let queues = &SqsQueues::new(SqsQueues::client(&config), cluster.clone(), urls);
    let ssm = ssm_client(&config);
    let commands = match (environment.apply_document, environment.apply_document_hash) {
        (Some(document), Some(document_hash)) => Some(SsmCommands {
            client: ssm.clone(),
            document,
            document_hash,
            head_nodes: environment.head_nodes,
        }),
        _ => None,
    };
    let roads = &Roads {
        keys: SsmKeys::new(ssm, cluster.clone()),
        queue: has_queue,
        commands,
    };
    DynamoTable::warm(dynamo, table, cluster).await;
    run(service_fn(|event: LambdaEvent<Event>| async move {
        let invocation = &Invocation::new("callback", cluster, &event.context);
        let home = Home::of_function(&event.context.invoked_function_arn)?;
        let table = DynamoTable::new(dynamo.clone(), table.clone(), cluster.clone(), home);
        let control = &Control {
            cluster: cluster.clone(),
            table,
            queues: queues.clone(),
            clock: SystemClock,
        };
        // Boxed: the future of a whole delivery is large.
        let work = async |nodes| Box::pin(deliver(control, roads, &nodes)).await;
        Ok::<DynamoDbEventResponse, Error>(handle_changes(invocation, event.payload, work).await)
    }))
    .await
}
