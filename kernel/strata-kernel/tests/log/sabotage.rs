//! The tests of the tests: each planted bug must be caught by a row above.

use std::panic::{AssertUnwindSafe, catch_unwind};

use strata_kernel::env::sim::{FaultKind, SyncFault};
use strata_kernel::log::Durability;
use strata_kernel::sabotage;

use super::crash::{cut_during_slow_flushes, cut_everywhere, flush_comes_by_itself, kill_everywhere};
use super::cut::checkpoints_survive;
use super::damage::{Subject, flip_every_bit};
use super::faults::fail_everywhere;
use super::harness::Run;
use super::sealed::nonces_are_unique_across_crashes;

/// Run `row` with the bug planted: it must fail. And without it, so that the failure has one cause.
fn caught<T>(bug: &str, row: impl Fn() -> T) {
    row();
    let outcome = catch_unwind(AssertUnwindSafe(|| sabotage::with(bug, &row)));
    assert!(outcome.is_err(), "{bug} was not caught");
}

fn crashes(durability: Durability) -> impl Fn() -> usize {
    move || (0..6).map(|seed| cut_everywhere(&Run::random(seed, durability, 30), 3)).sum()
}

#[test]
fn t01_acknowledged_while_the_bytes_are_still_ours() {
    let kills = |seed| kill_everywhere(&Run::random(seed, Durability::Buffered, 30));
    caught("T01", || (0..3).map(kills).sum::<usize>());
}

#[test]
fn t02_strict_acknowledged_before_sync() {
    caught("T02", crashes(Durability::Strict));
}

#[test]
fn t03_the_flusher_never_runs() {
    caught("T03", flush_comes_by_itself);
}

#[test]
fn t04_the_window_is_not_held_when_a_flush_is_slow() {
    caught("T04", cut_during_slow_flushes);
}

#[test]
fn t05_the_next_segment_is_used_before_the_old_is_synced() {
    caught("T05", crashes(Durability::Buffered));
}

#[test]
fn t06_no_directory_sync() {
    caught("T06", crashes(Durability::Strict));
}

#[test]
fn t07_a_record_of_zeros_is_valid() {
    caught("T07", crashes(Durability::Strict));
}

#[test]
fn t08_the_torn_tail_is_kept() {
    caught("T08", crashes(Durability::Buffered));
}

#[test]
fn t09_an_ordinary_torn_tail_is_refused() {
    caught("T09", crashes(Durability::Strict));
}

#[test]
fn t10_cut_although_more_is_proven() {
    caught("T10", || flip_every_bit(&Subject::new(false, 1 << 12)));
}

#[test]
fn t11_a_failed_write_is_ignored() {
    caught("T11", || fail_everywhere(1, Durability::Buffered, &[FaultKind::Errno(5)]));
}

#[test]
fn t13_a_failed_sync_is_tried_again() {
    caught("T13", || fail_everywhere(1, Durability::Strict, &[FaultKind::Sync(SyncFault::Once)]));
}

#[test]
fn t14_the_cache_is_believed_after_a_failed_sync() {
    caught("T14", || fail_everywhere(1, Durability::Strict, &[FaultKind::Sync(SyncFault::NewShownOldKept)]));
}

#[test]
fn t15_the_checksum_is_not_verified() {
    caught("T15", || flip_every_bit(&Subject::new(true, 1 << 12)));
}

#[test]
fn t16_the_checksum_leaves_the_length_out() {
    caught("T16", || flip_every_bit(&Subject::new(true, 1 << 12)));
}

#[test]
fn t20_the_log_goes_before_the_manifest_is_durable() {
    checkpoints_survive(200..202, false);
    let outcome = catch_unwind(|| checkpoints_survive(200..202, true));
    assert!(outcome.is_err(), "T20 was not caught");
}

#[test]
fn t21_records_are_replayed_twice() {
    caught("T21", crashes(Durability::Strict));
}

#[test]
fn t56_a_nonce_comes_again_after_a_crash() {
    caught("T56", || nonces_are_unique_across_crashes(1..2));
}
