//! The power fails in the middle of anything: a commit, a batch, a retirement, a purge, a checkpoint, a clean close, and the
//! recovery from all that. Here nvlite runs on simulated media, which lose at every point of its history what they may lose;
//! what it recovers must be the state after some transaction between the last acknowledged and the last submitted.
//! `NVLITE_CRASH_SEEDS` asks for more histories than the default, `NVLITE_CRASH_FIRST` for others.

#![allow(clippy::panic)]

use nvlite_engine::MediumKind;
use nvlite_tests::sim::drive::{Plan, Report, explore, record};
use nvlite_tests::sim::history::Shape;
use nvlite_tests::sim::nvlite::Nvlite;

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn crash(kind: MediumKind, shape: Shape, plan: Plan, seeds: u64) -> Report {
    let first = asked("NVLITE_CRASH_FIRST", 0);
    let mut total = Report::default();
    for seed in first..first + asked("NVLITE_CRASH_SEEDS", seeds) {
        let subject = Nvlite { kind, budget: 160 << 10, finish: seed % 2 == 0, forges: false };
        let recording = record(&subject, shape, seed).unwrap_or_else(|e| panic!("{subject:?}, seed {seed}: {e}"));
        let report = explore(&subject, &recording, shape, plan, seed, None)
            .unwrap_or_else(|e| panic!("{subject:?}, seed {seed}: {e}"));
        total.points += report.points;
        total.states += report.states;
        total.nested += report.nested;
        total.open = total.open.max(report.open);
        total.finished += report.finished;
        total.finished_by_lines += report.finished_by_lines;
        total.sampled += report.sampled;
    }
    println!("{kind:?}: {total:?}");
    assert!(total.nested > 0, "recovery was crashed too");
    total
}

/// Every state of every point, as far as recovery can tell them apart.
fn crash_in_every_way(kind: MediumKind, seeds: u64) {
    let total = crash(kind, Shape::LEAST, Plan::WHOLE, seeds);
    assert_eq!(total.sampled, 0, "points at which not all states were seen");
    assert!(total.finished > 0, "points all of whose states were seen");
}

#[test]
fn every_state_of_the_least_histories_on_dax() {
    crash_in_every_way(MediumKind::Dax, 2);
}

#[test]
fn every_state_of_the_least_histories_on_file() {
    crash_in_every_way(MediumKind::File, 2);
}

#[test]
fn tiny_histories_on_dax() {
    crash(MediumKind::Dax, Shape::TINY, Plan::TINY, 4);
}

#[test]
fn tiny_histories_on_file() {
    crash(MediumKind::File, Shape::TINY, Plan::TINY, 4);
}

#[test]
fn histories_with_deaths_on_dax() {
    crash(MediumKind::Dax, Shape::DEADLY, Plan::LONG, 2);
}

#[test]
fn histories_with_deaths_on_file() {
    crash(MediumKind::File, Shape::DEADLY_BATCH, Plan::LONG, 4);
}

#[test]
fn long_histories_on_dax() {
    crash(MediumKind::Dax, Shape::LONG, Plan::LONG, 2);
}

#[test]
fn long_histories_on_file() {
    crash(MediumKind::File, Shape::LONG, Plan::LONG, 2);
}
