//! One function for each rule that every backend keeps. Each is given an empty database of its own, panics where the rule
//! is broken, and says its rule by its name. [`each_rule`](crate::each_rule) hands all of them to a backend's tests.
//!
//! Nothing here begins a transaction while it holds another, except to see a writer wait: a backend may have one writer.

#![expect(missing_docs, reason = "the name of a rule is its sentence")]

mod examples;
mod fixtures;
mod keys;
mod measures;
mod people;
mod requests;
mod states;
mod tenants;
mod views;
mod votes;
mod writers;

pub use examples::*;
pub use keys::*;
pub use measures::*;
pub use people::*;
pub use requests::*;
pub use states::*;
pub use tenants::*;
pub use views::*;
pub use votes::*;
pub use writers::*;

/// Calls a macro with the names of all rules, so that a backend tests a new one without naming it.
#[macro_export]
macro_rules! each_rule {
    ($backend:ident) => {
        $backend! {
            found_people_come_in_the_order_asked_and_an_unknown_one_is_none,
            as_many_people_as_a_request_may_name_are_found_at_once,
            a_person_comes_once_and_stays_who_they_are,
            nobody_is_held_where_there_is_nobody,
            people_are_listed_page_by_page_in_the_order_of_their_bytes,
            members_have_every_attribute_asked_for,
            a_crowd_is_another_when_anybodys_examples_are,
            a_watermark_is_another_after_every_write_and_no_read,
            groups_are_counted_page_by_page,
            attributes_that_people_have_are_listed_once_in_the_order_of_their_bytes,
            a_change_of_attributes_makes_another_moment_though_its_clock_is_behind,
            attributes_are_replaced_as_a_whole_and_kept_to_the_byte,
            what_is_counted_on_a_row_reads_back_in_all_64_bits,
            texts_are_kept_to_the_byte,
            examples_come_page_by_page_in_the_order_in_which_they_came,
            examples_are_found_by_id_in_the_order_in_which_they_came,
            known_examples_are_those_of_one_person,
            evidence_has_the_forms_asked_for_of_one_backbone,
            embeddings_that_are_there_stay_as_they_are,
            an_erased_example_takes_its_embeddings_and_predictions_along,
            a_state_is_kept_bit_for_bit_and_replaced,
            every_state_of_a_person_is_removed_at_once,
            states_of_models_that_are_gone_are_pruned_in_one_tenant,
            an_erasure_is_announced_with_its_commit,
            tallies_count_an_even_prediction_as_one_half,
            tallies_come_in_the_order_of_names_then_versions,
            an_erased_person_leaves_nothing_and_comes_back_as_a_stranger,
            an_answer_is_kept_once,
            what_is_too_old_expires_and_nothing_else,
            every_write_to_the_audit_log_is_one_line,
            a_key_is_found_by_its_hash_revoked_or_not,
            a_key_is_made_once_or_not_at_all,
            the_first_revocation_of_a_key_stands,
            keys_are_listed_with_the_oldest_first,
            tenants_are_made_with_their_first_key,
            tenants_see_nothing_of_each_other,
            no_write_reaches_another_tenant,
            a_commit_is_seen_at_once,
            nothing_is_seen_before_its_commit,
            a_dropped_transaction_leaves_no_trace,
            a_failed_transaction_leaves_no_trace,
            a_second_writer_of_a_person_waits_for_the_first,
            fifty_writers_of_one_person_lose_nothing,
            a_person_who_comes_fifty_times_at_once_comes_once,
            writers_of_different_people_all_succeed,
            predictions_are_added_up_by_person,
            a_span_holds_its_first_moment_and_not_the_one_after_it,
            groups_are_the_values_asked_for_in_their_order,
            measures_see_nothing_of_another_tenant,
            what_is_erased_is_not_measured,
            numbers_of_examples_fall_into_their_class,
            steps_begin_with_hours_days_and_mondays_of_utc,
            steps_add_up_what_people_did_in_them,
            models_that_have_predicted_are_listed_with_the_newest_last,
            a_moment_is_another_when_examples_or_attributes_are,
            people_take_sides_of_a_pair_whichever_was_chosen,
            pairs_that_nobody_shares_are_left_out,
            votes_are_counted_by_group,
            votes_are_those_of_a_span,
            pairs_come_in_the_order_of_their_digests_and_whole,
            mistakes_come_with_the_worst_first,
            mistakes_are_those_of_people_with_every_attribute,
            a_database_that_works_says_so,
        }
    };
}
