//! One seed of each row, one planted bug, and that a seed is a seed.

use crate::arguments::Arguments;
use crate::rows::{self, Row};
use crate::tally::Tally;
use crate::trace::Trace;
use crate::{flips, run, twins};

fn passes(row: Row, seed: u64) -> Tally {
    let (mut tally, mut trace) = (Tally::default(), Trace::default());
    rows::run(row, seed, &mut tally, &mut trace).unwrap();
    tally
}

#[test]
fn f1_f2_f6_a_history_survives_every_crash() {
    let tally = passes(Row::Crashes, 3);
    assert!(tally.power_cuts > 100 && tally.kills > 40 && tally.nested > 10);
}

#[test]
fn f6_indexes_that_come_and_go_answer_as_new_ones() {
    assert!((3..5).map(|seed| passes(Row::Indexed, seed).power_cuts).sum::<u64>() > 100);
}

#[test]
fn f3_every_call_fails_once_and_for_ever() {
    assert!(passes(Row::Faults, 3).faults > 300);
}

#[test]
fn f8_damage_is_told_or_harmless() {
    assert!(passes(Row::Damage, 7).damages > 800);
}

#[test]
fn f8_every_so_many_flips_and_cuts() {
    let counts = flips::run(2, 9973, 1, drop).unwrap();
    assert!(counts.runs > 100 && counts.told > counts.harmless);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert!(run::is_deterministic(1..3).is_ok());
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    let twin = twins::ALL.iter().find(|twin| twin.name == "T02").unwrap();
    assert!(twin.hunt(1, 10).is_some());
}

#[test]
fn a_seed_alone_is_a_replay() {
    let parse = |text: &str| Arguments::parse(text.split_whitespace().map(str::to_owned));
    assert!(parse("--seed 8412").unwrap().is_replay());
    assert!(!parse("--seed 8412 --histories 3").unwrap().is_replay());
    assert_eq!(parse("--quick").unwrap().images, 10_000);
    assert!(parse("--speed").is_err() && parse("--seed x").is_err());
}
