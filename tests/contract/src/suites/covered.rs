//! Which test covers which method of the ports, on both worlds where the test is a suite's. `tests/coverage.rs` sees to
//! it that none is missing, and that the tests are there.
//!
//! The table's stream is no port: Lambda hands its changes over, and what its reader fails at comes again. The emulator does
//! not do that, so the simulation alone has it; `functions/runtime/tests` looks at what is answered.

/// A port's method, and the file and the function that cover it.
pub type Covered = (&'static str, &'static str, &'static str);

const PAIRINGS: &str = "tests/contract/src/suites/pairings.rs";
const INSTANCES: &str = "tests/contract/src/suites/instances.rs";
const RECORDS: &str = "tests/contract/src/suites/records.rs";
const QUEUES: &str = "tests/contract/src/suites/queues.rs";
const EC2: &str = "tests/contract/src/suites/ec2.rs";
const EVENTS: &str = "tests/contract/src/suites/events.rs";
const KEYS: &str = "tests/contract/src/suites/keys.rs";
/// Run Command is the lab's own: the adapter is tested on it with a head node that runs what is sent.
const ROADS: &str = "tests/lab/tests/stories/roads.rs";

/// All of them, in the order of `functions/control/src/ports.rs`.
#[rustfmt::skip]
pub const COVERED: &[Covered] = &[
    ("Table::policy", RECORDS, "the_policy_is_the_one_that_was_pushed"),
    ("Table::pairings", PAIRINGS, "a_node_never_heard_of_is_new_at_version_0"),
    ("Table::write_pairings", PAIRINGS, "each_write_stands_alone"),
    ("Table::nodes_with_update_due", PAIRINGS, "an_update_is_due_until_it_is_acknowledged"),
    ("Table::active_nodes", PAIRINGS, "a_node_is_active_while_it_has_an_instance_or_waits_for_one"),
    ("Table::every_node", PAIRINGS, "a_node_is_active_while_it_has_an_instance_or_waits_for_one"),
    ("Table::instances", INSTANCES, "instances_are_those_that_exist_each_once"),
    ("Table::release_unpaired", INSTANCES, "what_no_node_took_is_released_and_what_is_paired_stays"),
    ("Table::release_orphan", INSTANCES, "an_orphan_is_released_unless_somebody_took_it_up"),
    ("Table::hold", INSTANCES, "a_hold_stays_until_it_is_taken_away"),
    ("Table::note_unknown", INSTANCES, "the_first_note_of_an_unknown_instance_stays"),
    ("Table::mark_terminated", INSTANCES, "an_instance_is_marked_terminated_by_one_call"),
    ("Table::shared", RECORDS, "every_record_that_many_write_has_one_writer_a_version"),
    ("Table::put_shared", RECORDS, "every_record_that_many_write_has_one_writer_a_version"),
    ("Table::request", RECORDS, "a_request_has_one_writer_a_version"),
    ("Table::put_request", RECORDS, "a_request_has_one_writer_a_version"),
    ("Table::attempt", RECORDS, "an_attempt_is_written_once_and_answered"),
    ("Table::put_attempt", RECORDS, "an_attempt_is_written_once_and_answered"),
    ("Table::answer_attempt", RECORDS, "an_attempt_is_written_once_and_answered"),
    ("Table::heartbeat", RECORDS, "an_older_sign_of_life_changes_nothing"),
    ("Table::put_heartbeat", RECORDS, "an_older_sign_of_life_changes_nothing"),
    ("Table::node_states", RECORDS, "older_node_states_change_nothing"),
    ("Table::put_node_states", RECORDS, "older_node_states_change_nothing"),
    ("Queues::send_resume", QUEUES, "what_is_sent_arrives_as_it_was_said"),
    ("Queues::send_suspend", QUEUES, "what_is_sent_arrives_as_it_was_said"),
    ("Queues::send_report", QUEUES, "what_is_sent_arrives_as_it_was_said"),
    ("Queues::send_envelope", QUEUES, "what_is_sent_arrives_as_it_was_said"),
    ("Keys::signing_key", KEYS, "the_signing_key_is_the_active_one"),
    ("Commands::send", ROADS, "updates_come_by_ssm_alone"),
    ("CommandOutcomes::outcome", KEYS, "an_unknown_command_has_no_outcome"),
    ("EventBus::publish", EVENTS, "what_is_published_arrives_as_it_was_said"),
    ("Ec2::launch", EC2, "all_are_launched_and_found_by_their_tags"),
    ("Ec2::find", EC2, "more_than_a_page_is_found"),
    ("Ec2::find_in_reservation", EC2, "those_of_a_reservation_are_found_by_their_tags_too"),
    ("Ec2::terminate", EC2, "what_ec2_does_not_know_is_told_apart"),
    ("Ec2::impaired", EC2, "what_fails_its_status_checks_is_found"),
    ("Ec2::console", EC2, "a_console_can_be_read"),
    ("Ec2::tag", EC2, "tags_are_set_and_found"),
    ("Clock::now_ms", KEYS, "time_passes_and_identifiers_are_fresh"),
    ("Clock::sleep_ms", KEYS, "time_passes_and_identifiers_are_fresh"),
    ("Clock::fresh_id", KEYS, "time_passes_and_identifiers_are_fresh"),
];
