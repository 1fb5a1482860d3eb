//! The whole life of a database, from adoption to clean close, with a power cut everywhere: what a child did to files and
//! directories is written down, and of what it had not synced anything may be missing. As after a death (`life_kill`), stock
//! SQLite must read the base file right or refuse it, and the next process must find what was acknowledged, and leave a stock
//! file and nothing else (P14). And each sync is needed: without it, something is lost.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::panic)]

use nvlite_tests::life::Scene;
use nvlite_tests::life::power::record;
use nvlite_tests::sql::{System, log};
use std::collections::{BTreeMap, HashSet};

const WORKER: &str = env!("CARGO_BIN_EXE_life_worker");

/// Cuts the power everywhere; then the same without each sync. Answers whether the loss of it was noticed, by what it is for.
fn lose_power(scenes: &[Scene]) -> BTreeMap<String, bool> {
    log::listen();
    let mut noticed: BTreeMap<String, bool> = BTreeMap::new();
    for scene in scenes {
        let (place, known) = scene.set(System::File, WORKER);
        let region = place.superblock().map(|superblock| superblock.region);
        let mut recording = record(&place, known, WORKER);
        // an adoption that was taken back, a clean close: either could not sync, or was killed before
        if let (Scene::Unmarked | Scene::Finished, Some(region)) = (scene, region) {
            recording.mark_may_be_back(region);
        }
        let mut right = HashSet::new();
        let report = recording.explore(None, &mut right).unwrap_or_else(|e| panic!("{scene:?}: {e}"));
        println!("{scene:?}: {} events, {report:?}", recording.events.len());
        for (what, syncs) in recording.syncs() {
            for sync in syncs {
                let lost = recording.explore(Some(sync), &mut right.clone());
                *noticed.entry(what.clone()).or_default() |= lost.is_err();
            }
        }
    }
    noticed
}

/// Syncs that nobody misses: the first is SQLite's; the second is of what recovery accepts and writes again, which those who died
/// had synced here (`mutation.rs` and `faults.rs` have others).
const TWICE: [&str; 2] = ["make life.db-shm", "life.db-nvlite, superblock"];

/// Everything that must be synced was, and each time that is noticed; and there is no other sync.
fn each_is_needed(noticed: &BTreeMap<String, bool>, least: &[&str]) {
    println!("{noticed:#?}");
    for what in least {
        assert!(
            noticed.keys().any(|sync| sync.split(", ").any(|part| part == *what)),
            "no sync for {what}: {noticed:?}"
        );
    }
    let superfluous: Vec<&String> = noticed.iter().filter(|(_, noticed)| !**noticed).map(|(what, _)| what).collect();
    assert!(superfluous.iter().all(|what| TWICE.contains(&what.as_str())), "nobody misses {superfluous:?}");
}

/// What every life syncs.
const LEAST: [&str; 9] = [
    "make life.db-nvlite",
    "make life.db-cold",
    "superblock",
    "mark of life.db",
    "life.db-nvlite",
    "life.db-cold",
    "life.db",
    "remove life.db-nvlite",
    "remove life.db-cold",
];

#[test]
fn p14_power_cuts_in_the_life_of_a_stock_file() {
    let noticed = lose_power(&Scene::STOCK);
    each_is_needed(&noticed, &[&LEAST[..], &["make life.db"]].concat());
}

#[test]
fn p14_power_cuts_after_deaths() {
    let noticed = lose_power(&Scene::LEFT);
    let also = ["rename life.db-cold", "rename life.db-nvlite", "no mark of life.db"];
    each_is_needed(&noticed, &[&LEAST[..], &also].concat());
}
