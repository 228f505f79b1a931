//! The world in memory keeps what the ports promise. Its time is virtual: nothing here waits.

use spillway_contract::memory::Subscribed;
use spillway_contract::suites::{ec2, events, instances, keys, pairings, queues, records};
use spillway_core::envelope::SigningKey;
use spillway_world::sim::{SIGNING_SEED, calm};

#[test]
fn the_table_keeps_its_promises_of_nodes() {
    calm(|port| async move { pairings::suite(&port).await });
}

#[test]
fn the_table_keeps_its_promises_of_instances() {
    calm(|port| async move { instances::suite(&port).await });
}

#[test]
fn the_table_keeps_its_promises_of_other_records() {
    calm(|port| async move {
        records::suite(&port).await;
        let pushed = port.pushed_policy();
        records::the_policy_is_the_one_that_was_pushed(&port, &pushed).await;
        records::older_node_states_change_nothing(&port).await;
    });
}

#[test]
fn the_queues_keep_their_promises() {
    calm(|port| async move { queues::suite(&port).await });
    calm(|port| async move { queues::a_delay_beyond_the_longest_is_cut_to_it(&port).await });
}

#[test]
fn ec2_keeps_its_promises() {
    calm(|port| async move { ec2::suite(&port).await });
}

#[test]
fn keys_clock_and_ssm_keep_their_promises() {
    calm(|port| async move {
        let active = SigningKey::from_seed(&SIGNING_SEED).public();
        keys::the_signing_key_is_the_active_one(&port, &active).await;
        keys::an_unknown_command_has_no_outcome(&port).await;
        keys::time_passes_and_identifiers_are_fresh(&port).await;
    });
}

#[test]
fn the_event_bus_keeps_its_promises() {
    calm(|_| async move { events::suite(&Subscribed::default()).await });
}
