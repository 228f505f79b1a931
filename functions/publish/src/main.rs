//! `publish`: changes in the table of nodes' items, and of the last sweep's report, become events on the stack's bus, for
//! the site.

use aws_lambda_events::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use spillway_aws::{DynamoTable, EventBridgeBus, Home, sdk_config};
use spillway_control::publish::publish;
use spillway_runtime::{Environment, Invocation, SystemClock, handle_history, start_logs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_logs();
    let environment = Environment::read()?;
    let config = sdk_config().await;
    let dynamo = &DynamoTable::client(&config);
    let bus = environment.required_event_bus()?;
    let bus = &EventBridgeBus::new(EventBridgeBus::client(&config), bus);
    let (cluster, table) = (&environment.cluster, &environment.table);
    run(service_fn(|event: LambdaEvent<Event>| async move {
        let invocation = &Invocation::new("publish", cluster, &event.context);
        let home = Home::of_function(&event.context.invoked_function_arn)?;
        let table = &DynamoTable::new(dynamo.clone(), table.clone(), cluster.clone(), home);
        // Boxed: the future of all the layers below is deep.
        let work = async |changes: Vec<_>| {
            Box::pin(publish(cluster, table, bus, &SystemClock, &changes)).await
        };
        Ok::<DynamoDbEventResponse, Error>(handle_history(invocation, event.payload, work).await)
    }))
    .await
}
