"""Every twin: which promise it breaks, how it is put in place, and which tests must fail on it."""

import contextlib
import json
import math
from dataclasses import dataclass, replace

from rich.console import Console

from api.gate.errors import UNAVAILABLE_CLASSES
from shared.enriched import holds_anything
from shared.phase.now import phase_now
from shared.phase.turn import hold
from shared.postgres.read_only import NEW_SESSIONS_ARE_READ_ONLY
from shared.verdict import course, proved
from shared.verdict import rules as status_rules
from tests.security.as_role import ROLES_SQL
from tests.twins import bulk, capture, doorbell, losses, phase, pooler, relay, shadow, view, writes
from tests.twins.replacing import Put, all_of, instead_of, with_statement
from worker.dashboard.audits import audit_of
from worker.dashboard.log_line import LogLine
from worker.dashboard.page_state import Audit
from worker.preflight.check import Check, Severity
from worker.relay.settle import CONFLATED
from worker.rollback.statements import IS_ENRICHED


@dataclass(frozen=True)
class Twin:
    """A wrong way to do it, on which each of `tests` must fail; of several cases, the one in brackets."""

    promise: str
    put: Put
    tests: tuple[str, ...]


RELAY = "tests/worker/test_relay.py::test_"
POISON = "tests/worker/test_poison.py::test_"
NO_EVIDENCE = f"{POISON}rows_that_are_refused_for_no_known_reason_wait_while_nothing_shows_whose_fault_it_is"
BLAME = "tests/worker/test_blame.py::test_"
WRITTEN = "tests/projection/test_written.py::test_"
BELIEVING = with_statement("worker.relay.claim.CLAIM", ") AS is_borne_out", ") IS NOT NULL AS is_borne_out")
BORNE_OUT = "tests/worker/test_borne_out.py::test_"
BELIED = ("another home", "a deletion of what is active", "a deletion elsewhere")
MISNUMBERED = "tests/worker/test_misnumbered.py::test_"
BATCH_SIZE = "tests/worker/test_batch_size.py::test_"
ROW_SECURITY = "tests/security/test_row_security.py::test_"
SESSIONS = "tests/shared/test_sessions.py::test_"
NOT_READY = "tests/api/test_health.py::test_not_ready_and_no_write_once_a_sequence_is_wrong_until_it_is_cured"
LETHAL = "tests/worker/test_lethal.py::test_"
STORMS = "tests/worker/test_storms.py::test_"
TAKEN_AWAY = "tests/security/test_taken_away.py::test_while_the_api_s_role_lacks_what_it_needs"
VERSIONS = "tests/versions/test_later_versions.py::test_"
REPLAY = "tests/dead_letters/test_replay.py::test_"
ONE_LETTER = "tests/dead_letters/test_one_open_letter.py::test_"
SAID = "tests/dead_letters/test_said.py::test_"
SYNC_STATE = "tests/api/test_sync_state.py::test_"
DRAINER = "tests/worker/test_drainer.py::test_"
ADMIN_CONSOLE = "tests/api/test_console.py::test_"
ADMIN_PHASE = "tests/api/test_phase.py::test_"
WRITES = "tests/api/test_writes.py::test_"
IDEMPOTENCY = "tests/api/test_idempotency.py::test_"
LISTING = "tests/api/test_listing.py::test_"
STORED = "tests/api/test_what_others_stored.py::test_"
TOMBSTONES = "tests/worker/test_tombstones.py::test_"
CUT_OFF = "tests/race/test_cut_off.py::test_a_"
CHUNK_CUT_OFF = f"{CUT_OFF}chunk_that_is_cut_off_appended_nothing_and_moved_no_cursor"
BATCH_CUT_OFF = f"{CUT_OFF}batch_that_is_cut_off_changed_nothing_and_the_next_settles_each_event_once"
INTERLEAVED = "tests/race/test_interleavings.py::test_"
WRITERS = "tests/race/test_writers.py::test_"
TWO_DEPLOYMENTS = "tests/doorbell/test_two_deployments.py::test_"
REDIS_WRITER = "tests/security/test_redis_writer.py::test_"
REFUSALS = (
    "tests/doorbell/test_refusals.py::test_what_is_refused_is_named_by_ring_readiness_and_worker"
    "_and_events_are_applied_without_it"
)
WAKE_UPS = "tests/race/test_wake_ups.py::test_"
GUARDS = "tests/backfill/test_guards.py::test_"
GUARDED = f"{GUARDS}what_was_in_sync_before_us_leaves_the_project_that_it_is_moved_from_and_no_other"
OVERWRITE = "tests/backfill/test_overwrite.py::test_"
AUDIT = "tests/audit/test_"
TAKEN_BY_START = "taken by a release that knows no token"
ROLLBACK = "tests/rollback/test_"
OVERLOAD = "tests/api/test_overload.py::test_"
BODY = "tests/api/test_request_body.py::test_"
TURN = "tests/phase/test_turn.py::test_"
CONSOLE = "tests/commands/test_console.py::test_"
PATIENCE = "tests/commands/test_patience.py::test_"
ROTATIONS = "tests/dashboard/test_rotations.py::test_"
VERDICT = "tests/dashboard/test_page_verdict.py::test_"
TRACE = "tests/tracing/test_one_trace.py::test_"
POOLER = "tests/scaling/test_pooler.py::test_"
FAILOVER = "tests/scaling/test_redis_failover.py::test_"
JOURNEY = "tests/field/test_worlds.py::test_the_journey_is_made_or_refused_in_words"
REFUSED = "tests/startup/test_refusals.py::test_what_no_process_can_use_is_refused_and_nothing_of_it_shown"
ADDRESS = "tests/shared/test_database_address.py::test_"
FOUR_WORKERS = "tests/scaling/test_four_workers.py::test_"
STATUS_IS = "tests/status/test_answer.py::test_the_verdict_is"
CAPTURE = "tests/capture/test_"
LOSSES = "tests/phase/test_losses.py::test_"
CAPTURED = f"{CAPTURE}writers.py::test_appended_writes_get_their_events_and_the_target_agrees"
WITHOUT_RIGHTS = (
    f"{CAPTURE}rights.py::test_a_writer_without_any_right_on_our_tables_is_captured_under_its_own_name"
)
COMPARED = "tests/shadow/test_comparison.py::test_"
FALL_BACK = "tests/shadow/test_fall_back.py::test_"
SHOWN = (
    "tests/phase/test_view.py::test_lists_show_what_the_phase_says_and_of_what_is_unsettled_the_legacy_row"
)
RETURN = "tests/phase/test_return.py::test_nothing_returns"
TURNS = "tests/phase/test_turns_under_load.py::test_"
VIEW_LOCKS = "tests/phase/test_view_locks.py::test_"
LIFE = "tests/status/test_lives.py::test_nothing_is_in_sync_that_was_not_proved_since_it_was_last_changed"

GRANT_ALL = "GRANT ALL ON ALL TABLES IN SCHEMA public TO collection_sync_api"


def drawn_as_zero(line: LogLine, at: float) -> Audit:
    """Return an audit with zeros for what it did not count."""
    audit = audit_of(line, at)
    return replace(
        audit, compared=audit.compared or 0, missing=audit.missing or 0, pending=audit.pending or 0
    )


TWINS = {
    # A write
    "row read without a lock": Twin(
        "the order of ids is the order of commits",
        with_statement("api.write_statement.CHANGE", "FOR NO KEY UPDATE", ""),
        (f"{WRITERS}an_update_that_waited_for_a_deletion_does_not_bring_the_row_back",),
    ),
    "id drawn before the lock": Twin(
        "the order of ids is the order of commits",
        writes.draw_the_id_before_the_lock,
        (f"{WRITERS}of_two_writers_the_one_that_commits_last_has_the_higher_id",),
    ),
    "event appended after the commit": Twin(
        "a write is one transaction",
        writes.append_after_the_commit,
        (f"{WRITES}a_write_that_cannot_log_or_append_leaves_nothing_behind[outbox_events]",),
    ),
    "activity logged after the commit": Twin(
        "a write is one transaction",
        writes.log_activity_after_the_commit,
        (f"{WRITES}a_write_that_cannot_log_or_append_leaves_nothing_behind[activity_logs]",),
    ),
    "a key looked up before the write": Twin(
        "a creation with a key is made once",
        with_statement(
            "api.idempotency.CREATE_ONCE",
            "AS answered) FROM written",
            "AS answered) FROM written ON CONFLICT DO NOTHING",
        ),
        (f"{IDEMPOTENCY}of_two_at_once_the_second_waits_for_the_first_and_gets_its_answer",),
    ),
    "a list made in one piece": Twin(
        "a long list holds up nobody",
        all_of(
            instead_of("api.listing.PIECE", 10**6),
            instead_of("api.listing.FETCH", "FETCH ALL FROM listed"),
        ),
        tuple(
            f"{LISTING}of_however_many_lists_one_piece_is_made_in_each_round_of_the_loop[{at_once}]"
            for at_once in (100, 2000)
        ),
    ),
    "lists that do not take turns": Twin(
        "a long list holds up nobody",
        instead_of("api.gate.long_lists.LongLists.turn", lambda _: contextlib.nullcontext()),
        (f"{LISTING}of_however_many_lists_one_piece_is_made_in_each_round_of_the_loop[2000]",),
    ),
    "times as the driver reads them": Twin(
        "no answer depends on what Python can hold",
        with_statement("api.write_statement.CHANGE", "to_json(created_at) AS created_at", "created_at"),
        (f"{STORED}whatever_time_others_stored_every_endpoint_answers_and_workers_apply_it[10000-01-01]",),
    ),
    "outdated statements given up": Twin(
        "a table that is altered fails no request",
        instead_of("api.gate.guarded_route.is_outdated_plan", writes.believe_in_every_plan),
        (f"{STORED}a_column_that_is_altered_meanwhile_fails_no_request",),
    ),
    # A batch
    "guard removed": Twin(
        "newest state wins",
        instead_of("worker.relay.settle.apply", relay.blind_upsert),
        (
            f"{RELAY}an_older_event_that_comes_late_changes_nothing",
            f"{RELAY}the_same_event_twice_is_applied_once",
        ),
    ),
    "tombstone forgotten": Twin(
        "what is deleted stays deleted",
        instead_of("worker.relay.settle.apply", relay.guard_without_tombstone),
        (f"{RELAY}an_older_event_does_not_bring_a_deleted_row_back",),
    ),
    "tombstones removed under open transactions": Twin(
        "no tombstone goes that an event may need",
        with_statement(
            "worker.tombstones.PRUNE",
            "AND age(guard.xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)",
            "",
        ),
        (f"{TOMBSTONES}a_tombstone_stays_while_an_older_event_may_still_be_committed",),
    ),
    "tombstones removed under waiting events": Twin(
        "no tombstone goes that an event may need",
        with_statement(
            "worker.tombstones.PRUNE",
            "AND NOT EXISTS (SELECT FROM outbox_events WHERE aggregate_id = guard.collection_id)",
            "",
        ),
        (f"{TOMBSTONES}what_waits_or_died_keeps_its_tombstone",),
    ),
    "guard and apply in one statement": Twin(
        "what is deleted stays deleted",
        instead_of("worker.relay.settle.apply", relay.guard_and_apply_in_one_statement),
        (f"{INTERLEAVED}a_deletion_sees_the_row_that_another_worker_wrote_while_the_guard_waited_for_it",),
    ),
    "conflation removed": Twin(
        "of a batch only the newest state counts",
        instead_of("worker.relay.run.settle", relay.settle_without_conflation),
        (f"{RELAY}only_the_newest_event_of_a_collection_in_a_batch_is_applied",),
    ),
    "rows written not counted": Twin(
        "what is acknowledged is in the target",
        instead_of("worker.relay.settle.apply", relay.apply_without_counting),
        (
            f"{RELAY}a_target_that_drops_a_row_silently_keeps_the_batch_from_committing",
            f"{BLAME}a_row_that_stays_although_it_was_deleted_keeps_the_batch_from_committing",
        ),
    ),
    "former home row kept": Twin(
        "exactly one home row",
        with_statement("worker.relay.apply.RETIRE_ROWS", "(guard.previous_project_id)", "(NULL)"),
        (f"{RELAY}a_collection_that_moved_leaves_its_old_home",),
    ),
    "what is in sync left without a guard": Twin(
        "exactly one home row",
        instead_of("worker.backfill.chunk.insert_guards", bulk.leave_unguarded),
        (
            *(f"{GUARDED}[{found_by}]" for found_by in ("a backfill", "a repair", "its own event")),
            f"{GUARDS}what_is_moved_between_the_read_and_the_guard_leaves_no_row_behind[by hand]",
        ),
    ),
    "a guard by what is there when it is written": Twin(
        "exactly one home row",
        bulk.guard_by_what_is_there_now,
        tuple(
            f"{GUARDS}what_is_moved_between_the_read_and_the_guard_leaves_no_row_behind[{moved}]"
            for moved in ("by hand", "with its event")
        ),
    ),
    "a guard over what was applied": Twin(
        "newest state wins",
        bulk.guard_over_what_was_applied,
        (f"{GUARDS}a_guard_that_an_event_left_between_the_read_and_the_guard_stays",),
    ),
    "events read as records of the target": Twin(
        "an event's other fields are passed over",
        all_of(
            instead_of("worker.relay.apply.INSERT_ROWS", relay.INSERT_RECORDS),
            instead_of("worker.relay.apply.UPDATE_ROWS", relay.UPDATE_RECORDS),
        ),
        (
            f"{WRITTEN}a_field_that_is_named_like_another_column_of_the_target_is_passed_over",
            f"{WRITTEN}what_the_target_demands_of_another_column_is_its_default_s_to_fulfil",
            f"{WRITTEN}a_time_means_the_same_to_a_target_that_stores_no_zone",
        ),
    ),
    "every row of the collection retired": Twin(
        "what others own stays",
        all_of(
            with_statement(
                "worker.relay.apply.RETIRE_ROWS",
                "project_id = former.project_id AND collection_id = event.aggregate_id LIMIT 1",
                "collection_id = event.aggregate_id",
            ),
            with_statement(
                "worker.relay.apply.RETIRE_ROWS", "count(*) FROM found", "count(DISTINCT id) FROM found"
            ),
        ),
        (f"{RELAY}links_to_other_projects_and_tags_and_mappings_are_never_touched",),
    ),
    "where it was deleted taken for a former home": Twin(
        "what others own stays",
        with_statement("worker.relay.apply.GUARD", "WHEN NOT guard.is_deleted THEN", "WHEN true THEN"),
        (f"{RELAY}a_link_to_where_a_collection_was_deleted_stays_when_it_comes_back_elsewhere",),
    ),
    "convicted without evidence": Twin(
        "no event is convicted without evidence",
        instead_of("worker.relay.settle._Trial._try_again", relay.convict_at_once),
        (f"{NO_EVIDENCE}[RETURN NULL]",),
    ),
    "convicted by the first fault": Twin(
        "no event is convicted without evidence",
        instead_of("worker.relay.settle._Trial._try_again", relay.convict_when_another_went_through),
        (f"{POISON}a_suspect_is_tried_once_more_after_another_of_its_kind_went_through",),
    ),
    "the surroundings' doing taken for an event's": Twin(
        "what the surroundings did convicts nobody",
        instead_of("worker.relay.blame.is_environmental", lambda _error: False),
        (f"{BLAME}what_the_surroundings_did_convicts_nobody_although_others_went_through[42501]",),
    ),
    "any fault taken for an event's, at once": Twin(
        "what the surroundings did convicts nobody",
        all_of(
            instead_of("worker.relay.blame.is_environmental", lambda _error: False),
            instead_of("worker.relay.settle._Trial._try_again", relay.convict_at_once),
        ),
        (
            f"{STORMS}while_a_batch_is_divided_what_goes_and_comes_and_ends_sessions_costs_no_event_its_life[100-6]",
        ),
    ),
    "every unique key taken for the event's": Twin(
        "what the surroundings did convicts nobody",
        instead_of("worker.relay.blame.HOLDS_WRITTEN_COLUMN", relay.ANY_INDEX),
        (f"{BLAME}ids_that_a_restored_sequence_draws_again_are_nobodys_fault",),
    ),
    "every foreign key taken for a parent's": Twin(
        "obsolete is only what has no parent",
        instead_of("worker.relay.blame.LEADS_TO_A_PARENT", relay.ANY_KEY),
        (f"{BLAME}a_row_that_a_child_holds_dies_by_the_childs_name_and_one_without_a_parent_is_obsolete",),
    ),
    "constraints left to the commit": Twin(
        "a poison event stops nobody",
        instead_of("worker.relay.run.ISOLATED", "SET LOCAL lock_timeout = '100ms'"),
        (f"{BLAME}what_postgresql_refuses_at_commit_is_found_in_the_pass",),
    ),
    "postponed events claimed again and again": Twin(
        "what waits holds up nobody",
        instead_of("worker.drainer.LaneDrainer._look_behind", lambda *_: False),
        (f"{BLAME}events_that_wait_hold_up_none_behind_them",),
    ),
    "batches of one size": Twin(
        "what takes too long holds up nobody",
        instead_of("worker.relay.batch_size.BatchSize.note_too_long", lambda *_: None),
        (f"{BATCH_SIZE}every_pass_settles_some_of_a_backlog_that_takes_too_long_as_one_batch",),
    ),
    "whatever an event says": Twin(
        "no event is believed against the legacy table",
        BELIEVING,
        (
            *(f"{BORNE_OUT}an_event_that_the_legacy_table_belies_changes_nothing[{what}]" for what in BELIED),
            f"{BORNE_OUT}the_newest_event_that_is_borne_out_is_applied_instead",
        ),
    ),
    "a lower version always stale": Twin(
        "a version that went back loses nothing without a word",
        all_of(
            instead_of("worker.relay.settle.find_misnumbered", relay.find_none),
            instead_of("worker.relay.settle.MISNUMBERED", CONFLATED),
        ),
        (
            f"{MISNUMBERED}an_event_newer_than_what_was_applied_with_no_higher_version_is_set_aside[lower]",
            f"{MISNUMBERED}of_one_batch_as_well_the_newer_event_with_the_lower_version_is_not_lost_without_a_word",
        ),
    ),
    "a letter for an id": Twin(
        "a letter is its event's alone",
        with_statement(
            "worker.relay.bury.BURY",
            "WHERE (outbox_dead_letters.aggregate_id, outbox_dead_letters.created_at)"
            " = (excluded.aggregate_id, excluded.created_at)",
            "",
        ),
        (f"{MISNUMBERED}a_letter_is_never_replaced_by_another_events",),
    ),
    "an id drawn for every conflict": Twin(
        "an update draws no id",
        instead_of("worker.relay.apply.UPDATE_ROWS", relay.UPDATE_NOTHING),
        (f"{BLAME}updates_draw_no_id_and_insertions_one_each",),
    ),
    "whatever the defaults are": Twin(
        "a session says what it relies on",
        instead_of("shared.postgres.database.RELIED_ON", {}),
        (f"{SESSIONS}what_others_set_for_the_database_is_not_in_force[default_transaction_isolation]",),
    ),
    "audit of the rows that a policy shows": Twin(
        "an audit that cannot see says so",
        instead_of("shared.postgres.database.RELIED_ON", {"default_transaction_isolation": "read committed"}),
        (
            f"{ROW_SECURITY}an_audit_whose_role_may_not_see_every_row_proves_nothing[all]",
            f"{ROW_SECURITY}an_audit_whose_role_may_not_see_every_row_proves_nothing[a part]",
        ),
    ),
    "every sequence believed": Twin(
        "nothing is written while a sequence would draw what was drawn before",
        instead_of("shared.postgres.sequences.Sequence.faults", []),
        (
            f"{SESSIONS}a_database_whose_sequences_are_wrong_lends_no_connection_and_one_cured_at_once[write_by_the_driver]",
            f"{NOT_READY}[behind]",
        ),
    ),
    "connections from before kept": Twin(
        "nothing is written while a sequence would draw what was drawn before",
        instead_of("shared.postgres.database.lend_none_if_outdated", lambda *_: None),
        (f"{NOT_READY}[behind]",),
    ),
    "the newest run by its id": Twin(
        "the newest run is the last in time",
        with_statement("worker.audit.custody.IS_DUE", "finished_at DESC", "id DESC"),
        (f"{AUDIT}runs.py::test_which_run_is_the_newest_is_told_by_time_although_ids_began_anew",),
    ),
    "a missing heartbeat believed": Twin(
        "the newest run is the last in time",
        with_statement("worker.audit.custody.TAKE_UP", "'5 seconds', true)", "'5 seconds', false)"),
        (f"{AUDIT}runs.py::test_a_run_without_a_heartbeat_is_dead_and_taken_up",),
    ),
    "a held row holds up the batch": Twin(
        "who holds a row holds up no other",
        instead_of("worker.relay.faults.LOCK_NOT_AVAILABLE", "none"),
        (f"{POISON}a_row_that_somebody_holds_makes_only_its_own_event_wait",),
    ),
    "claim behind a cursor": Twin(
        "what commits late is applied",
        relay.claim_behind_a_cursor,
        (f"{RELAY}an_event_that_commits_late_is_applied_although_newer_ones_were_before",),
    ),
    "acknowledged up to the highest id": Twin(
        "what commits late is applied",
        instead_of("worker.relay.run.acknowledge", relay.acknowledge_up_to_the_highest),
        (f"{INTERLEAVED}an_event_that_comes_between_claim_and_acknowledgement_stays[before the claim]",),
    ),
    "claim without SKIP LOCKED": Twin(
        "no worker waits for another",
        with_statement("worker.relay.claim.CLAIM", "SKIP LOCKED", ""),
        (f"{INTERLEAVED}a_worker_does_not_wait_for_what_another_has_in_hand",),
    ),
    "four workers without a guard": Twin(
        "any number of workers share one database",
        instead_of("tests.scaling.test_four_workers.WORKER", ["-m", "tests.scaling.blind_worker"]),
        (f"{FOUR_WORKERS}four_workers_on_hot_keys_leave_no_drift_and_settle_each_event_once",),
    ),
    "settings left to the pooler": Twin(
        "a pooler takes nothing away",
        pooler.give_no_settings,
        (f"{POOLER}every_statement_has_the_settings_that_a_session_of_its_own_would_have",),
    ),
    "claim without lanes": Twin(
        "users' writes come first",
        with_statement("worker.relay.claim.CLAIM", "ORDER BY lane, id", "ORDER BY id"),
        (f"{RELAY}live_events_are_claimed_before_repairs_and_repairs_before_backfill",),
    ),
    "every version claimed": Twin(
        "what a worker does not know waits for one that does",
        instead_of("worker.relay.run.claim", relay.claim_every_version),
        (f"{VERSIONS}an_event_of_a_later_version_waits_for_a_worker_that_knows_it[api]",),
    ),
    "later versions buried": Twin(
        "what a worker does not know waits for one that does",
        instead_of("worker.relay.run.claim", relay.take_later_versions_for_malformed),
        (f"{VERSIONS}an_event_of_a_later_version_waits_for_a_worker_that_knows_it[api]",),
    ),
    "bulk takes no notice of live writes": Twin(
        "users' writes come first",
        instead_of("worker.drainer.LaneDrainer.settled_lately", twin=False),
        (f"{DRAINER}bulk_takes_short_batches_while_users_write[True-batches1]",),
    ),
    "acknowledged before the apply": Twin(
        "a batch is one transaction",
        relay.acknowledge_before_the_apply,
        (f"{BATCH_CUT_OFF}[guard: claimed, before the guard]",),
    ),
    "acknowledged after the apply": Twin(
        "a batch is one transaction",
        instead_of("worker.relay.run.acknowledge", relay.acknowledge_after_the_apply),
        (
            f"{BATCH_CUT_OFF}[acknowledge: before]",
            f"{INTERLEAVED}what_a_batch_has_in_hand_is_nobody_else_s_until_it_is_gone",
        ),
    ),
    "dead letter kept in another transaction": Twin(
        "a batch is one transaction",
        relay.bury_apart,
        (f"{CUT_OFF}batch_that_is_cut_off_after_it_buried_an_event_has_not_buried_it[acknowledge: before]",),
    ),
    # Poison and passing faults
    "poison tried again and again": Twin(
        "a poison event stops nobody",
        instead_of("worker.relay.run.may_pass_apart", lambda _error: False),
        (f"{INTERLEAVED}a_poison_event_does_not_keep_the_others_of_its_batch_from_being_applied",),
    ),
    "savepoints removed": Twin(
        "a poison event stops nobody",
        instead_of("worker.relay.settle._Trial._isolate", relay.halve_without_savepoints),
        (f"{INTERLEAVED}a_poison_event_does_not_keep_the_others_of_its_batch_from_being_applied",),
    ),
    "whole batch buried": Twin(
        "a poison event stops nobody",
        instead_of("worker.relay.settle._Trial._isolate", relay.bury_the_whole_batch),
        (
            f"{INTERLEAVED}a_poison_event_does_not_keep_the_others_of_its_batch_from_being_applied",
            f"{POISON}of_500_events_with_one_poison_499_are_applied_in_the_same_pass_and_one_is_dead",
        ),
    ),
    "passing faults taken for a row's": Twin(
        "a fault that passes burns no event",
        relay.passing_faults_are_the_rows,
        (f"{POISON}a_fault_that_passes_by_itself_costs_no_event_its_life[40001]",),
    ),
    "no mark before the batch": Twin(
        "what ends its worker is set aside",
        with_statement("worker.relay.caution.MARK", "attempts + 1", "attempts"),
        (f"{LETHAL}marks_are_on_disk_before_their_events_are_touched_and_go_with_them",),
    ),
    "a lane in other hands taken for empty": Twin(
        "what ends its worker is set aside",
        with_statement("worker.relay.caution.BEARS_MARKS", "attempts > 0", "false"),
        (f"{LETHAL}a_lane_whose_marked_event_another_worker_has_in_hand_is_not_taken_for_empty",),
    ),
    "what is away taken for a defect": Twin(
        "what is taken away is answered with 503",
        instead_of("api.gate.errors.UNAVAILABLE_CLASSES", UNAVAILABLE_CLASSES - {"42"}),
        tuple(f"{TAKEN_AWAY}_writes_are_answered_with_503[{code}]" for code in ("42501", "42P01", "42703")),
    ),
    "PostgreSQL's own words": Twin(
        "a reason holds nothing that a user wrote",
        instead_of("worker.relay.settle.reason", str),
        (f"{POISON}the_reason_names_what_refused_the_row_and_quotes_no_value",),
    ),
    "what died replayed": Twin(
        "a replay follows the newest state",
        instead_of("shared.dead_letters.append_states", bulk.append_what_died),
        (f"{REPLAY}a_replay_appends_what_the_collection_is_now_not_what_died",),
    ),
    "letters closed unseen": Twin(
        "a letter closes when it was overtaken",
        with_statement(
            "worker.dead_letters.upkeep.CLOSE_OVERTAKEN",
            "guard.version > letter.id AND"
            " (guard.dated_version = guard.version AND letter.created_at > guard.appended_at) IS NOT TRUE",
            "true",
        ),
        (f"{REPLAY}a_letter_is_superseded_once_a_newer_event_of_its_collection_is_applied_and_not_before",),
    ),
    "every letter left open": Twin(
        "one open letter for a collection",
        with_statement("worker.relay.bury.SUPERSEDE", "AND letter.closed_at IS NULL", "AND false"),
        (
            f"{ONE_LETTER}a_letter_supersedes_the_older_one_of_its_collection_in_the_batch_that_buries_it",
            f"{ONE_LETTER}what_dies_after_a_newer_event_died_is_superseded_at_once",
        ),
    ),
    "what has a lower version taken for older": Twin(
        "one open letter for a collection",
        with_statement("worker.relay.bury.SUPERSEDE", "AND newer.created_at >= letter.created_at", ""),
        (f"{ONE_LETTER}what_a_sequence_that_went_back_makes_look_older_closes_nothing_and_stays_open",),
    ),
    "words of any length": Twin(
        "PostgreSQL's words stay with the letter",
        instead_of("shared.postgres.faults.LONGEST_SAID", 1_000_000),
        (f"{SAID}words_beyond_two_thousand_characters_are_cut[x]",),
    ),
    "an overtaken letter named": Twin(
        "a letter that is named stands for a row that is not in sync",
        with_statement("api.sync_state.READ_STATE", "letter.id > coalesce(guard.version, 0)", "true"),
        (f"{SYNC_STATE}the_states_follow_a_collection_from_before_the_backfill_to_its_healing",),
    ),
    # The doorbell
    "job taken after the scan": Twin(
        "no wake-up is lost",
        instead_of("worker.doorbell.arq_worker.WakeableWorker._take_up", doorbell.drain_then_dismiss),
        (f"{WAKE_UPS}a_commit_at_the_moment_the_job_is_taken_is_drained_or_rings_again[before]",),
    ),
    "one set of names for all": Twin(
        "deployments may share a Redis",
        instead_of("shared.redis.deployment.read_identity", doorbell.same_everywhere),
        (
            f"{TWO_DEPLOYMENTS}a_copy_and_a_restored_dump_are_databases_of_their_own",
            f"{TWO_DEPLOYMENTS}a_ring_wakes_the_workers_of_its_own_database_and_no_others",
        ),
    ),
    "sweeps left to others": Twin(
        "a lost ring costs one sweep",
        instead_of("worker.drainer.Drainer.wake", doorbell.leave_sweeps_to_others),
        (f"{TWO_DEPLOYMENTS}what_nobody_rang_for_is_found_by_the_next_tick_of_a_worker_of_its_own",),
    ),
    "any job taken for ours": Twin(
        "nothing in Redis ends a worker",
        instead_of("shared.redis.doorbell.from_json", json.loads),
        tuple(
            f"{REDIS_WRITER}arq_s_own_worker_is_given_no_job_but_ours[{value}]"
            for value in ("a try that is text", "an endless time", "arguments")
        ),
    ),
    "refusals taken for silence": Twin(
        "what Redis refuses is named",
        instead_of("shared.redis.faults.fault_of", doorbell.take_refusals_for_silence),
        (f"{REFUSALS}[no channels]",),
    ),
    "call during a drain ignored": Twin(
        "no wake-up is lost",
        instead_of("worker.drainer.LaneDrainer.wake", doorbell.wake_unless_awake),
        (f"{DRAINER}a_call_during_a_drain_makes_it_look_once_more",),
    ),
    "bell rung before the commit": Twin(
        "no wake-up is lost",
        writes.ring_before_the_commit,
        (f"{WRITES}the_doorbell_rings_after_the_commit_and_not_before",),
    ),
    "a vanished Redis listened to": Twin(
        "a failover of Redis loses nothing",
        instead_of("worker.doorbell.listener.next_message", doorbell.wait_for_a_message),
        (f"{FAILOVER}who_listens_to_a_redis_that_vanished_without_a_word_soon_hears_its_successor",),
    ),
    "request awaits the ring": Twin(
        "no request waits for Redis",
        writes.await_the_ring,
        ("tests/api/test_faults.py::test_no_request_waits_for_redis_whether_it_is_away_or_hangs",),
    ),
    # Backfill
    "backfill without row locks": Twin(
        "a backfill overwrites nothing newer",
        bulk.lock_no_rows,
        (
            f"{OVERWRITE}a_live_update_between_read_and_write_is_not_overwritten[mismatched]",
            f"{OVERWRITE}a_live_deletion_between_read_and_write_is_not_undone",
        ),
    ),
    "orphans appended as deleted": Twin(
        "a backfill overwrites nothing newer",
        all_of(instead_of("worker.backfill.chunk.append_states", bulk.append_as_deleted), BELIEVING),
        (f"{OVERWRITE}an_orphan_that_was_brought_back_between_read_and_write_stays",),
    ),
    "cursor moved after the events' commit": Twin(
        "a chunk is one transaction",
        bulk.move_the_cursor_afterwards,
        (f"{CHUNK_CUT_OFF}[backfill: cursor moved]",),
    ),
    "cursor moved before the events' commit": Twin(
        "a chunk is one transaction",
        bulk.move_the_cursor_ahead,
        (f"{CHUNK_CUT_OFF}[backfill: read, before its events]",),
    ),
    "a run held by its number": Twin(
        "a run has one holder",
        instead_of("worker.custody.Custody._is_held", property(bulk.held_by_its_number)),
        (
            f"{AUDIT}runs.py::test_a_process_that_was_thought_dead_writes_nothing_more",
            "tests/backfill/test_runs.py::test_whoever_lost_the_run_changes_nothing_any_more[another driver]",
        ),
    ),
    "a run held by its token alone": Twin(
        "a run has one holder",
        instead_of("worker.custody.Custody._is_held", property(bulk.held_by_its_token)),
        (f"{AUDIT}runs.py::test_a_run_that_was_lost_is_not_carried_out[{TAKEN_BY_START}]",),
    ),
    # Audit, repair, rollback
    "audit ignores pending events": Twin(
        "an audit raises no false alarm",
        bulk.ignore_pending_events,
        (f"{AUDIT}comparison.py::test_a_pair_whose_event_waits_is_pending_and_no_finding[api]",),
    ),
    "audit takes what is too old for pending": Twin(
        "only what can still change a pair excuses it",
        bulk.believe_what_is_too_old,
        (f"{AUDIT}excuses.py::test_an_event_that_is_older_than_what_was_applied_excuses_nothing",),
    ),
    "audit waits for what nobody claims": Twin(
        "only what can still change a pair excuses it",
        bulk.wait_for_what_nobody_claims,
        (
            f"{AUDIT}excuses.py::test_beside_drift_they_are_told_of_too_and_stay_when_it_is_mended",
            f"{AUDIT}excuses.py::test_of_a_row_without_a_collection_too_an_event_must_be_claimable[9]",
        ),
    ),
    "audit takes NULL for empty": Twin(
        "an audit finds every difference",
        bulk.take_null_for_empty,
        (f"{AUDIT}comparison.py::test_every_different_text_is_found",),
    ),
    "audit without a canary": Twin(
        "an audit that cannot see says so",
        instead_of("worker.audit.run.blindness", bulk.see_no_canary),
        (f"{AUDIT}coverage.py::test_the_canary_convicts_every_blind_comparison",),
    ),
    "audit counts only what it compared": Twin(
        "an audit that cannot see says so",
        bulk.believe_any_count,
        (f"{AUDIT}coverage.py::test_fewer_pairs_compared_than_planned_is_incomplete",),
    ),
    "what died repaired again and again": Twin(
        "a repair goes in no circle",
        with_statement(
            "worker.audit.findings.READ_PAGE", "AND closed_at IS NULL", "AND closed_at IS NULL AND false"
        ),
        (f"{AUDIT}dead_events.py::test_a_repair_passes_over_what_died_and_repairs_the_others",),
    ),
    "repair writes deletions as deletions": Twin(
        "a repair follows the newest state",
        all_of(bulk.repair_by_what_was_found, BELIEVING),
        (f"{AUDIT}repair.py::test_a_collection_brought_back_between_finding_and_repair_keeps_its_row",),
    ),
    "rollback without its lock": Twin(
        "a rollback takes what is ours and nothing else",
        bulk.keep_no_batch_out,
        (f"{ROLLBACK}storm.py::test_the_guard_of_a_row_that_is_just_coming_back_is_not_forgotten",),
    ),
    "rollback of rows that were found": Twin(
        "a rollback takes what is ours and nothing else",
        with_statement("worker.rollback.statements.REMOVE_ROWS", "OR guard.found_row", ""),
        (f"{ROLLBACK}what_stays.py::test_rows_that_were_there_before_our_first_event_stay_as_they_are",),
    ),
    "rollback of whatever row is there": Twin(
        "a rollback takes what is ours and nothing else",
        with_statement(
            "worker.rollback.statements.REMOVE_ROWS", "coalesce(guard.row_id = target.id, true)", "true"
        ),
        (
            f"{ROLLBACK}what_stays.py::test_a_row_that_somebody_made_after_ours_had_gone_with_its_collection_stays",
        ),
    ),
    "rollback that keeps the guards of no event": Twin(
        "a rollback takes what is ours and nothing else",
        with_statement("worker.rollback.statements.FORGET_GUARDS", "version = 0 OR", ""),
        (
            f"{ROLLBACK}what_stays.py::test_what_was_in_sync_before_us_stays_and_what_becomes_of_it_later_is_not_ours",
        ),
    ),
    "rollback of enriched rows": Twin(
        "a rollback takes what is ours and nothing else",
        with_statement("worker.rollback.statements.REMOVE_ROWS", f"OR {IS_ENRICHED}", ""),
        (
            f"{ROLLBACK}what_stays.py::test_a_row_that_holds_anything_stays_and_one_whose_json_is_empty_goes[tags]",
        ),
    ),
    "a rollback that does not hold the phase": Twin(
        "nothing is taken from under moved reads",
        with_statement("shared.phase.now.KEEP", "FOR UPDATE", ""),
        (
            f"{ROLLBACK}phase.py::test_whoever_turns_the_phase_waits_for_the_chunk_in_hand_and_who_reads_does_not",
        ),
    ),
    "a rollback that looks at the phase once": Twin(
        "nothing is taken from under moved reads",
        instead_of("worker.rollback.walk.refuse_while_moved", phase_now),
        (f"{ROLLBACK}phase.py::test_reads_that_are_moved_in_the_middle_keep_what_is_left",),
    ),
    "a check that could not look taken for fine": Twin(
        "what could not be looked at is not fine",
        instead_of(
            "worker.preflight.examination.not_looked", lambda name, why: Check(name, Severity.OK, why)
        ),
        ("tests/preflight/test_looks.py::test_a_check_that_cannot_look_is_not_fine",),
    ),
    # All of it
    "a worker that applies nothing": Twin(
        "no world is green and wrong",
        instead_of("tests.field.journey.WORKER", ["-m", "tests.field.idle_worker"]),
        (f"{JOURNEY}[an ordinary one]",),
    ),
    "an audit that finds nothing": Twin(
        "no world is green and wrong",
        instead_of("tests.field.journey.AUDIT", ["-m", "tests.field.blind_audit"]),
        (f"{JOURNEY}[an ordinary one]",),
    ),
    # The outside
    "patience without end": Twin(
        "no request queues without end",
        instead_of("api.gate.admission.PLACE_WAIT_SECONDS", None),
        (f"{OVERLOAD}while_every_connection_is_stuck_the_rest_is_refused_soon_and_then_all_is_well_again",),
    ),
    "a body of any size": Twin(
        "no request takes memory or time without bound",
        instead_of("api.gate.body.MAX_BODY_BYTES", 1 << 40),
        (f"{BODY}a_body_without_an_announced_length_is_counted_while_it_is_read",),
    ),
    "a role that may everything": Twin(
        "a process may no more than it needs",
        instead_of("tests.security.as_role.ROLES_SQL", f"{ROLES_SQL}; {GRANT_ALL}"),
        (
            "tests/security/test_role_refusals.py::test_what_a_role_has_no_business_with_is_refused_with_42501[api]",
        ),
    ),
    "a token that is not asked for": Twin(
        "no door opens without its token",
        instead_of("api.admin.routes.carries_token", lambda *_: True),
        (
            "tests/api/test_credentials.py::test_every_route_answers_every_credential_as_the_table_says[True-True]",
        ),
    ),
    "a site that is not asked for": Twin(
        "no page of another site acts",
        instead_of("api.admin.routes.require_own_site", lambda _request: None),
        (f"{ADMIN_CONSOLE}a_page_of_another_site_does_nothing_even_with_the_token[headers0]",),
    ),
    "turns of a phase that nobody saw": Twin(
        "operators who saw the same phase turn it once",
        instead_of("shared.phase.turn.hold", writes.hold_whatever_was_seen),
        (f"{ADMIN_PHASE}two_operators_who_saw_the_same_phase_turn_it_once[advance]",),
    ),
    "turns recorded afterwards": Twin(
        "no act without its record",
        instead_of("api.admin.phase.acting", writes.record_afterwards),
        (f"{ADMIN_PHASE}a_turn_that_cannot_be_recorded_is_none",),
    ),
    "acts recorded afterwards": Twin(
        "no act without its record",
        instead_of("api.admin.backfills.acting", writes.record_afterwards),
        (f"{ADMIN_CONSOLE}an_act_that_cannot_be_recorded_is_not_carried_out",),
    ),
    "the first caller believed": Twin(
        "two callers in one request are no caller",
        instead_of("api.gate.gateway.require_one_caller", lambda _request: None),
        ("tests/api/test_credentials.py::test_two_callers_in_one_request_are_no_caller",),
    ),
    "refusals and failures without a name": Twin(
        "an answer can be matched with the log",
        instead_of("api.gate.errors.identification", dict),
        ("tests/api/test_identification.py::test_each_line_about_a_request_has_the_names_of_its_answer",),
    ),
    "a URL taken as it comes": Twin(
        "nothing begins with a setting that is wrong",
        instead_of("shared.settings.check_redis_url", lambda _url: None),
        (f"{REFUSED}[-m worker --check]",),
    ),
    "parameters passed over in silence": Twin(
        "TLS is never weaker than was asked for",
        instead_of("shared.postgres.libpq_parameters._refuse_what_nobody_does", lambda *_: None),
        (f"{ADDRESS}protection_that_asyncpg_cannot_give_is_refused_whoever_asks",),
    ),
    # What it tells
    "the last verdict of a dead worker": Twin(
        "green is only what is proved and seen",
        instead_of("worker.dashboard.page_verdict._blind", lambda _evidence: None),
        (f"{VERDICT}of_a_log_the_page_says[a worker that fell silent]",),
    ),
    "a repair believed at once": Twin(
        "green is only what is proved and seen",
        instead_of(
            "shared.verdict.rules.RULES",
            tuple(rule for rule in status_rules.RULES if rule is not proved.repaired),
        ),
        (f"{VERDICT}of_a_log_the_page_says[repaired]",),
    ),
    "a verdict that reaches across a rollback": Twin(
        "page and status say the same",
        instead_of("worker.dashboard.rollbacks.Rollbacks.last", lambda _self: None),
        (
            f"{VERDICT}of_a_log_the_page_says[rolled back]",
            f"{VERDICT}of_a_log_the_page_says[rolled back, and a worker was started]",
        ),
    ),
    "a state that outlasts a blind spell": Twin(
        "page and status say the same",
        instead_of("worker.dashboard.since._floor", lambda _evidence: None),
        (f"{VERDICT}a_blind_spell_and_a_rollback_end_what_was_proved_before",),
    ),
    "a failed audit drawn as zero": Twin(
        "page and status say the same",
        instead_of("worker.dashboard.audits.audit_of", drawn_as_zero),
        (f"{VERDICT}a_failed_audit_is_a_gap_and_no_zero",),
    ),
    "a read-only spell seen by new connections alone": Twin(
        "page and status say the same",
        with_statement(
            "shared.status.server.LOOK",
            NEW_SESSIONS_ARE_READ_ONLY,
            "current_setting('default_transaction_read_only')::boolean",
        ),
        (
            "tests/status/test_lives.py::test_a_connection_from_before_a_read_only_spell_and_one_from_within_it_both_say_what_is_so_now",
        ),
    ),
    "a heartbeat that waits for PostgreSQL": Twin(
        "a worker that lives says so",
        instead_of("worker.vitals.heartbeat.HEARTBEAT_PATIENCE_SECONDS", None),
        ("tests/worker/test_heartbeat.py::test_while_postgresql_does_not_answer_it_beats_all_the_same",),
    ),
    "lags in the step below": Twin(
        "lags add up",
        instead_of("worker.telemetry.log.lag_step", lambda lag_ms: math.floor(math.log(lag_ms, 1.1))),
        ("tests/worker/test_batch_log.py::test_lags_are_those_of_the_events_lines_and_can_be_added_up",),
    ),
    "the file renamed without a lock": Twin(
        "no line is lost when its file is renamed",
        instead_of("shared.logs.file.fcntl.flock", lambda *_: None),
        (
            "tests/shared/test_log_file.py::test_of_two_that_find_the_file_full_at_once_one_renames_it[point1-kept1]",
        ),
    ),
    "the trace left behind": Twin(
        "one trace leads from the request to the applied row",
        instead_of("api.write_statement.current_traceparent", lambda: None),
        (f"{TRACE}the_trace_of_the_caller_is_stored_whether_or_not_there_are_spans[1]",),
    ),
    # Commands
    "texts printed as they are": Twin(
        "no text of others steers a terminal",
        instead_of("worker.command_line.console.Harmless.render", Console.render),
        (f"{CONSOLE}nothing_that_is_shown_of_data_is_obeyed[what somebody printed without a thought]",),
    ),
    "a result lost without a word": Twin(
        "a command's status is that of its work",
        instead_of("shared.process.streams.Patient.take_failure", lambda _: None),
        ("tests/commands/test_streams.py::test_what_cannot_be_written_is_lost_and_noted_once",),
    ),
    "a wait that ends with the connection": Twin(
        "who waits goes on when PostgreSQL is back",
        instead_of("worker.command_line.patience.is_transient", lambda _: False),
        (f"{PATIENCE}who_waits_for_events_goes_on_when_the_database_is_back",),
    ),
    "files passed over": Twin(
        "what the dashboard has not read it names",
        instead_of("worker.dashboard.reading.strangers", lambda _: []),
        (f"{ROTATIONS}another_log_is_none_of_ours_and_what_may_be_a_part_is_named",),
    ),
    "a proof from before believed": Twin(
        "status never says in sync unless it was proved since",
        instead_of("shared.verdict.validity.is_recent_enough", lambda *_: True),
        (LIFE, f"{STATUS_IS}[a proof from before the rollback]"),
    ),
    "what is missing before the backfill called drift": Twin(
        "status never says in sync unless it was proved since",
        instead_of(
            "shared.verdict.rules.RULES",
            tuple(rule for rule in status_rules.RULES if rule is not course.not_backfilled),
        ),
        (
            LIFE,
            f"{STATUS_IS}[never backfilled, and an audit says what is missing]",
        ),
    ),
    "a rollback that leaves no record": Twin(
        "status never says in sync unless it was proved since",
        with_statement("worker.rollback.record.BEGIN", "'rollback'", "'command'"),
        (LIFE,),
    ),
    # The capture
    "any event of a transaction taken for its last state": Twin(
        "no writer goes unseen",
        capture.with_function(
            ("AND said -> 'project_id' = wanted -> 'project_id' AND (", "AND (true OR "),
        ),
        (f"{CAPTURE}check.py::test_what_an_event_does_not_say_is_captured[a change behind its event]",),
    ),
    "whatever waits taken for this transaction's": Twin(
        "no writer goes unseen",
        capture.with_function(
            ("AND said_by < 2147483648", ""),
            ("CONTINUE WHEN pg_xact_status((this_one + said_by)::text::xid8) = 'in progress';", "CONTINUE;"),
        ),
        (f"{CAPTURE}check.py::test_an_event_that_another_transaction_appended_is_none_of_this_one",),
    ),
    "a write that is over although its event says something else": Twin(
        "no writer goes unseen",
        capture.with_function(("payload = jsonb_build_object", "'{}' <> jsonb_build_object")),
        (
            f"{CAPTURE}check.py::test_what_an_event_does_not_say_is_captured[a change behind its event]",
            f"{CAPTURE}check.py::test_what_an_event_does_not_say_is_captured[a malformed event]",
        ),
    ),
    "a write that is over although its event waited before": Twin(
        "no writer goes unseen",
        capture.with_function(("appended_by = pg_current_xact_id()::xid AND", "")),
        (f"{CAPTURE}check.py::test_an_event_that_another_transaction_appended_is_none_of_this_one",),
    ),
    "a write that is over although its event is a deletion": Twin(
        "no writer goes unseen",
        capture.with_function(("AND event_type <> 'collection.deleted'", "")),
        (f"{CAPTURE}check.py::test_what_an_event_does_not_say_is_captured[a deletion for an update]",),
    ),
    "a key that changed forgotten": Twin(
        "no writer goes unseen",
        capture.with_function(
            (
                "ELSE keys := ARRAY[OLD.collection_id, NEW.collection_id];",
                "ELSE keys := ARRAY[NEW.collection_id];",
            )
        ),
        (f"{CAPTURED}[key change]",),
    ),
    "captured before the transaction ends": Twin(
        "who appends is left alone",
        capture.look_at_once,
        (f"{CAPTURE}check.py::test_who_appends_is_left_alone[append-after its write]",),
    ),
    "a savepoint's event taken for another's": Twin(
        "who appends is left alone",
        capture.with_function(
            ("pg_xact_status((this_one + said_by)::text::xid8) = 'in progress'", "said_by = 0"),
        ),
        (f"{CAPTURE}check.py::test_who_appends_is_left_alone[append-in a savepoint]",),
    ),
    "every update captured": Twin(
        "who appends is left alone",
        capture.with_function(("IF TG_OP = 'UPDATE' THEN", "IF false THEN")),
        (f"{CAPTURED}[nothing projected]",),
    ),
    "captured with the writer's rights": Twin(
        "a captured writer needs no right",
        capture.with_function(("SECURITY DEFINER", "SECURITY INVOKER")),
        (f"{WITHOUT_RIGHTS}[as it is]",),
    ),
    # What going back would lose
    **{
        f"losses without {kind}": Twin(
            "no loss goes uncounted",
            with_statement("shared.phase.losses.COUNT", old, new),
            (f"{LOSSES}each_loss_is_counted_under_its_kind[{case}]",),
        )
        for kind, case, old, new in (
            ("further links", "a link", "(WHERE is_link)", "(WHERE false)"),
            ("tags", "tags", "(WHERE has_tags)", "(WHERE has_tags AND is_link)"),
            ("mappings", "hypotheses", holds_anything("linked_project_hypothesis_ids"), "false"),
            ("contexts", "a link with a context of its own", "THEN has_context ELSE", "THEN false ELSE"),
            ("homes", "without a home", "WHERE is_link AND is_settled", "WHERE false"),
        )
    },
    "a former home counted as a link": Twin(
        "no loss goes uncounted",
        with_statement(
            "shared.phase.losses.COUNT", "unsettled.former_home IS DISTINCT FROM target.project_id", "true"
        ),
        (f"{LOSSES}each_loss_is_counted_under_its_kind[moved, and its event waits]",),
    ),
    "losses counted kind by kind": Twin(
        "no loss goes uncounted",
        losses.count_kind_by_kind,
        (f"{LOSSES}all_kinds_are_of_one_snapshot",),
    ),
    "a removal that leaves the function": Twin(
        "what is installed can be removed without a trace",
        capture.leave_the_function,
        (f"{CAPTURE}installing.py::test_without_it_and_once_it_is_removed_no_legacy_table_is_touched",),
    ),
    # Lists from both sides
    "both sides in two statements": Twin(
        "a comparison takes no lag for a mismatch",
        instead_of("shared.phase.comparison.compare", shadow.compare_in_two_statements),
        (f"{COMPARED}a_write_that_is_applied_between_the_sides_is_no_mismatch",),
    ),
    "pending ignored by the comparison": Twin(
        "a comparison takes no lag for a mismatch",
        with_statement("shared.phase.comparison.COMPARE", "NOT waits AND", ""),
        (f"{COMPARED}a_list_is[a change waits]", f"{FALL_BACK}what_waits_or_died_turns_nothing_back"),
    ),
    "a letter ignored by the comparison": Twin(
        "a comparison takes no lag for a mismatch",
        with_statement("shared.phase.comparison.COMPARE", "AND NOT is_lettered", ""),
        (f"{COMPARED}a_list_is[an event died]", f"{FALL_BACK}what_waits_or_died_turns_nothing_back"),
    ),
    "links taken for orphans": Twin(
        "a comparison takes no lag for a mismatch",
        with_statement("shared.phase.comparison.COMPARE", "SELECT home.project_id <> $1", "SELECT $1 = ''"),
        (f"{COMPARED}a_list_is[linked from elsewhere]",),
    ),
    "the phase cached by who compares": Twin(
        "moved reads fall back once",
        shadow.remember_the_phase,
        (f"{FALL_BACK}a_writer_past_the_outbox_is_found_after_the_turn_and_lists_equal_legacy_again",),
    ),
    "a fall-back that asks for no epoch": Twin(
        "moved reads fall back once",
        with_statement("shared.phase.fall_back.FALL_BACK", "AND epoch = $1", "AND $1 > 0"),
        (f"{FALL_BACK}a_mismatch_of_an_earlier_epoch_turns_nothing",),
    ),
    "a fall-back that asks for nothing": Twin(
        "moved reads fall back once",
        with_statement(
            "shared.phase.fall_back.FALL_BACK",
            "AND phase = 'reads_moved' AND epoch = $1 AND falls_back",
            "AND $1 > 0",
        ),
        (
            f"{FALL_BACK}of_several_processes_at_once_one_turns_it",
            f"{FALL_BACK}where_it_is_not_to_fall_back_the_mismatch_is_kept_and_reads_stay",
        ),
    ),
    # The view
    "what waits taken for settled": Twin(
        "a moved read is never stale",
        view.with_function("AS event WHERE", "AS event WHERE false AND"),
        (
            f"{SHOWN}[created, not applied]",
            f"{SHOWN}[moved, not applied]",
            f"{TURNS}while_no_worker_runs_and_reads_are_moved_every_list_equals_collections[twenty writes]",
        ),
    ),
    "what died taken for settled": Twin(
        "a moved read is never stale",
        view.with_function("AS letter WHERE", "AS letter WHERE false AND"),
        (f"{SHOWN}[a change that died]", f"{SHOWN}[a move that died]"),
    ),
    "the former home shown": Twin(
        "a moved read is never stale",
        view.with_function("AND guard.project_id = project", "AND false"),
        (
            f"{SHOWN}[moved, not applied]",
            f"{SHOWN}[a move that died]",
            f"{RETURN}_wherever_a_worker_stands_and_whenever_reads_go_back[guard: before one row]",
        ),
    ),
    "a home that was left by a deletion taken for a former one": Twin(
        "a moved read is never stale",
        view.with_function("AND NOT guard.is_deleted", ""),
        (f"{SHOWN}[linked to where it was deleted, created again elsewhere, not applied]",),
    ),
    "links of what is deleted": Twin(
        "a moved read is never stale",
        view.with_function("WHERE legacy.is_active AND NOT", "WHERE NOT"),
        (f"{SHOWN}[linked, its deletion not applied]", f"{SHOWN}[linked, deactivated by hand]"),
    ),
    "a snapshot for each side": Twin(
        "a list is of one moment, and waits for no turn",
        view.with_function("STABLE", "VOLATILE"),
        (f"{VIEW_LOCKS}a_list_is_of_the_snapshot_of_its_statement_whatever_is_committed_meanwhile[True]",),
    ),
    "the target asked before the turn": Twin(
        "a list is of one moment, and waits for no turn",
        view.with_function(
            "FROM {legacy}.collections AS legacy WHERE legacy.project_id = project AND legacy.is_active;",
            "FROM {legacy}.collections AS legacy LEFT JOIN {target}.project_collections AS target"
            " USING (project_id, collection_id) WHERE legacy.project_id = project AND legacy.is_active;",
        ),
        (f"{VIEW_LOCKS}a_target_that_is_locked_before_the_turn_holds_up_no_list",),
    ),
    # The phase
    "gates checked outside the turn": Twin(
        "the phase is turned by gates of that moment",
        phase.look_before_the_lock,
        (f"{TURN}what_is_found_while_a_turn_waits_for_the_row_is_seen_by_its_gates",),
    ),
    "a turn of whatever phase it finds": Twin(
        "the phase is turned by gates of that moment",
        instead_of("shared.phase.turn.hold", lambda connection, _epoch: hold(connection)),
        (f"{TURN}of_operators_who_turn_what_they_saw_at_once_one_turns[2]",),
    ),
}
