//! An engine that is right by its own tests may still not be SQLite. Here random SQL (schema changes, savepoints, rollbacks,
//! spills, vacuum, open cursors, several connections) is played on nvlite and on stock SQLite: every row and every error
//! must be the same, and both databases must be whole. `NVLITE_DIFF_SEEDS` asks for more than the default.

use nvlite_tests::sim::mix;
use nvlite_tests::sql::System;
use nvlite_tests::sql::compare::{Case, compare};

fn case(system: System, more: &'static str, seed: u64) -> Case {
    let pick = |n: u64, from: &[u32]| from[(mix(seed, n) % from.len() as u64) as usize];
    Case {
        system,
        seed,
        connections: pick(1, &[1, 1, 2, 3, 5]) as usize,
        page_size: pick(2, &[512, 1024, 4096, 4096, 8192, 65536]),
        auto_vacuum: pick(3, &[0, 0, 1, 2]),
        cache: pick(4, &[2, 5, 10, 100]),
        mmap: u64::from(pick(5, &[0, 0, 1 << 20, 1 << 28])),
        more,
        ops: 400,
    }
}

fn play(system: System, more: &'static str) {
    nvlite_tests::sql::log::listen();
    let asked = std::env::var("NVLITE_DIFF_SEEDS").ok().and_then(|n| n.parse().ok());
    let first = std::env::var("NVLITE_DIFF_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let failures: Vec<String> = (first..first + asked.unwrap_or(25))
        .filter_map(|seed| compare(case(system, more, seed)).err())
        .take(3)
        .collect();
    let told = nvlite_tests::sql::log::lines("nvlite");
    let last = &told[told.len().saturating_sub(5)..];
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n\n"), last.join("\n"));
}

#[test]
fn random_sql_on_file_is_as_on_stock() {
    play(System::File, "");
}

#[test]
fn random_sql_on_ram_is_as_on_stock() {
    play(System::Ram, "");
}

/// The least fast tier that there is: pages are purged and come back all the time.
const LEAST: &str = "&region=1MiB";

#[test]
fn random_sql_in_the_least_region_on_file() {
    play(System::File, LEAST);
}

#[test]
fn random_sql_in_the_least_region_on_ram() {
    play(System::Ram, LEAST);
}
