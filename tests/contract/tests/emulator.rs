//! The adapters keep on the emulator, through the proxy, what the ports promise.

use spillway_aws::{SsmKeys, SsmOutcomes, ssm_client};
use spillway_contract::Place;
use spillway_contract::emulator::{Emulated, EmulatedBus};
use spillway_contract::suites::{ec2, events, instances, keys, pairings, queues, records};
use spillway_control::ports::{Keys, Table};
use spillway_core::envelope::SigningKey;
use spillway_core::name::ClusterName;

#[tokio::test]
async fn the_table_keeps_its_promises() {
    let emulated = Emulated::start().await;
    let table = &emulated.place.table;
    pairings::suite(table).await;
    instances::suite(table).await;
    records::suite(table).await;
    assert_eq!(table.policy().await.unwrap(), None);
    let pushed = emulated.push_policy().await;
    records::the_policy_is_the_one_that_was_pushed(table, &pushed).await;
    records::older_node_states_change_nothing(table).await;
    emulated.place.cloud.stop().await;
}

#[tokio::test]
async fn the_queues_keep_their_promises() {
    let emulated = Emulated::start().await;
    queues::suite(&emulated).await;
    keys::time_passes_and_identifiers_are_fresh(&emulated).await;
    emulated.place.cloud.stop().await;
}

#[tokio::test]
async fn ec2_keeps_its_promises() {
    let emulated = Emulated::start().await;
    ec2::suite(&emulated).await;
    emulated.place.cloud.stop().await;
}

#[tokio::test]
async fn keys_and_ssm_keep_their_promises() {
    let emulated = Emulated::start().await;
    let ssm = ssm_client(&emulated.place.config);
    let cluster = ClusterName::new("lab").unwrap();
    let own = SsmKeys::new(ssm.clone(), cluster);
    own.signing_key().await.expect_err("there is no key yet");
    let key = SigningKey::from_seed(&[3; 32]);
    let put = async |name: &str, kind: &str, value: &str| {
        let put = ssm
            .put_parameter()
            .name(format!("/spillway/lab/signing-key/{name}"));
        put.value(value).r#type(kind.into()).send().await.unwrap();
    };
    let id = key.id().to_string();
    put(&id, "SecureString", &key.to_secret_text()).await;
    put("active", "String", &id).await;
    keys::the_signing_key_is_the_active_one(&own, &key.public()).await;
    keys::an_unknown_command_has_no_outcome(&SsmOutcomes(ssm)).await;
    emulated.place.cloud.stop().await;
}

#[tokio::test]
async fn the_event_bus_keeps_its_promises() {
    let place = Place::start().await;
    events::suite(&EmulatedBus::start(&place).await).await;
    place.cloud.stop().await;
}
