//! The whole life of a database, with a death before and after every system call that changes a file: a stock file is taken
//! over (with what a dead stock process left beside it), worked on, and closed, by a child that is killed there; and again from
//! where such a death leaves it. Whenever it dies, stock SQLite must read the base file right or refuse it, and the next process
//! must find what was acknowledged, and leave a stock file and nothing else (P14).

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::panic)]

use nvlite_tests::life::calls::{Change, Counter, change, describe};
use nvlite_tests::life::trace::{Call, Verdict};
use nvlite_tests::life::{Place, Scene, told};
use nvlite_tests::sql::{System, log};
use std::collections::BTreeMap;

const WORKER: &str = env!("CARGO_BIN_EXE_life_worker");

/// How much of a life is interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Span {
    /// All of it.
    Whole,
    /// Until the database is open.
    Opening,
}

/// Lives at `place`, and dies at the `n`-th stop. Answers what it said, and where it died; `None` if it came to the end.
fn die_at(place: &Place, n: usize, span: Span) -> (String, Option<String>) {
    let (mut counter, mut at, mut over) = (Counter::default(), None, false);
    let end = place.live(WORKER, |call: &Call| {
        if !counter.counts(call) || over {
            return Verdict::Go;
        }
        over = span == Span::Opening && matches!(change(call), Some(Change::Say(_)));
        if counter.stops == n {
            at = Some(describe(call, place));
        }
        if counter.stops == n || over { Verdict::Kill } else { Verdict::Go }
    });
    assert!(end.status == Some(0) || (end.status.is_none() && (over || at.is_some())), "{:?} {}", end.status, end.said);
    (end.said, at)
}

/// Kills one life at each of its stops; counts the states that it died in.
fn die_everywhere(system: System, scene: Scene, span: Span, states: &mut BTreeMap<String, usize>) -> usize {
    let (start, before) = scene.set(system, WORKER);
    for n in 1.. {
        let place = start.copy();
        let (said, at) = die_at(&place, n, span);
        let context = || format!("{system:?}, {scene:?}, stop {n}, {}", at.as_deref().unwrap_or("the end"));
        let (known, closed) = told(&said, before);
        *states.entry(place.state()).or_default() += 1;
        if closed {
            place.check_closed(known).unwrap_or_else(|e| panic!("{}: {e}", context()));
        }
        place.check(known).unwrap_or_else(|e| panic!("{}: {e} {:?}", context(), log::lines("nvlite")));
        if at.is_none() {
            return n - 1;
        }
    }
    unreachable!("the child ends")
}

fn lives(system: System) {
    log::listen();
    let mut states = BTreeMap::new();
    for (scenes, span) in [(&Scene::STOCK[..], Span::Whole), (&Scene::LEFT[..], Span::Opening)] {
        for scene in scenes {
            let deaths = die_everywhere(system, *scene, span, &mut states);
            println!("{system:?}, {scene:?}: {deaths} deaths");
            assert!(deaths > 10, "{scene:?}");
        }
    }
    println!("{system:?}: {states:#?}");
    for state in ["stock, region empty", "stock, region new", "marked, region used", "marked, region complete"] {
        assert!(states.keys().any(|seen| seen.starts_with(state)), "nobody died with {state}");
    }
}

#[test]
fn p14_a_death_at_any_call_on_file() {
    lives(System::File);
}

#[test]
fn p14_a_death_at_any_call_on_ram() {
    lives(System::Ram);
}

/// What a clean close has completed is bound to nothing any more: not to its medium either.
#[test]
fn p14_a_death_in_the_close_leaves_the_choice_of_the_medium() {
    log::listen();
    for [from, to] in [System::NVLITE, [System::Ram, System::File]] {
        for scene in [Scene::Complete, Scene::Finished] {
            let (mut place, known) = scene.set(from, WORKER);
            place.system = to;
            place
                .check(known)
                .unwrap_or_else(|e| panic!("{scene:?}, {from:?}, then {to:?}: {e} {:?}", log::lines("nvlite")));
        }
        let (mut place, known) = Scene::Used.set(from, WORKER);
        place.system = to;
        assert!(place.check(known).is_err(), "a region in use is bound to its medium");
    }
}
