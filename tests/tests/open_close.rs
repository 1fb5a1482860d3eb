//! A program that opens its database for each request pays for each with every sync of an adoption, a recovery or a clean
//! close, and with the memory that is made present for it. More of either is noticed by no other test. Here a child opens and
//! closes under `strace`, and what a cycle costs is known to the sync. (`cargo run --release -p nvlite-vfs --example open_close`
//! tells what that is in time.)

#![allow(clippy::panic)]

use nvlite_tests::needs;
use nvlite_tests::sql::System;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

const CYCLES: u64 = 10;
/// Most memory that a cycle may ask for: a little of the 32 MiB of the log, and of the fast tier.
const MEMORY: u64 = 4 << 20;
const WRITES: &str = "INSERT INTO t(b) VALUES(1)";
const READS: &str = "SELECT count(*) FROM t";

/// Not a test of its own: what runs under `strace`.
#[test]
fn in_a_child() {
    let value = |name: &str| std::env::var(name).ok();
    let Some(path) = value("NVLITE_TEST_PATH") else { return };
    let (sql, more) = (value("NVLITE_TEST_SQL").expect("said"), value("NVLITE_TEST_MORE").expect("said"));
    let cycles: u64 = value("NVLITE_TEST_CYCLES").and_then(|n| n.parse().ok()).expect("a number");
    for _ in 0..cycles {
        let db = System::File.open_with(Path::new(&path), 1000, &more).expect("opens");
        db.execute_batch(&sql).expect("goes");
        db.close().expect("closes");
    }
}

/// Syncs of so many cycles, and bytes of shared memory that they ask for.
fn counted(path: &Path, sql: &str, more: &str, cycles: u64) -> (u64, u64) {
    let calls = path.with_extension("calls");
    let output = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync,msync,sync_file_range,sync,syncfs,fallocate", "-o"])
        .arg(&calls)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "in_a_child"])
        .env("NVLITE_TEST_PATH", path)
        .env("NVLITE_TEST_SQL", sql)
        .env("NVLITE_TEST_MORE", more)
        .env("NVLITE_TEST_CYCLES", cycles.to_string())
        .output()
        .expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let (mut syncs, mut memory) = (0, 0);
    for line in std::fs::read_to_string(&calls).expect("calls").lines().filter(|line| !line.contains("resumed>")) {
        // "PROCESS fallocate(DESCRIPTOR<PATH>, MODE, OFFSET, LENGTH) = 0"
        match line.split_once("fallocate(") {
            Some((_, call)) if call.contains("/nvlite-") => {
                let length =
                    call.split(&[',', ')', '<'][..]).nth(4).and_then(|length| length.trim().parse::<u64>().ok());
                memory += length.unwrap_or_else(|| panic!("{line}"));
            }
            Some(_) => {}
            None => syncs += u64::from(line.contains("sync")),
        }
    }
    (syncs, memory)
}

#[test]
fn a_cycle_of_open_and_close_costs_so_much() {
    if !needs::program("strace") {
        return;
    }
    let side = tempfile::tempdir().expect("a directory");
    let elsewhere = format!("&region_dir={}", side.path().display());
    let cycles = [
        // region, names, mark; batch; homes, "complete", unmark, names
        ("writes", WRITES, "", 8),
        // the same without batch and homes
        ("reads", READS, "", 6),
        // and the name of the base
        ("writes, side files elsewhere", WRITES, elsewhere.as_str(), 9),
        // the log again, homes, superblock; batch
        ("writes, region kept", WRITES, "&keep_region=1", 4),
        // superblock again, superblock
        ("reads, region kept", READS, "&keep_region=1", 2),
    ];
    for (what, sql, more, expected) in cycles {
        let scratch = System::File.scratch();
        let path = scratch.path("cycles.db");
        let stock = rusqlite::Connection::open(&path).expect("opens");
        stock.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("creates");
        drop(stock);
        // the first run adopts what the second finds, where the region is kept
        counted(&path, sql, more, 1);
        let (syncs, memory) = counted(&path, sql, more, CYCLES);
        println!("{what}: {syncs} syncs and {memory} bytes in {CYCLES} cycles");
        assert_eq!(syncs, CYCLES * expected, "{what}: syncs in {CYCLES} cycles");
        assert!((1..=CYCLES * MEMORY).contains(&memory), "{what}: {memory} bytes in {CYCLES} cycles");
    }
}

#[test]
fn a_database_of_100_gib_opens_as_one_of_two_pages_does() {
    // Failure: an open, or a first change, costs something for every page that the database has.
    if !needs::program("strace") {
        return;
    }
    let costs = |pages: Option<u32>| {
        let scratch = System::File.scratch();
        let path = scratch.path("large.db");
        let stock = rusqlite::Connection::open(&path).expect("opens");
        stock.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("creates");
        drop(stock);
        if let Some(pages) = pages {
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
            file.set_len(u64::from(pages) << 12).expect("a sparse file");
            file.write_all_at(&pages.to_be_bytes(), 28).expect("the header says so");
        }
        [WRITES, READS].map(|sql| counted(&path, sql, "", CYCLES))
    };
    let (small, large) = (costs(None), costs(Some(100 << 18)));
    println!("syncs and bytes in {CYCLES} cycles of writes, of reads: {small:?}, of 100 GiB {large:?}");
    assert_eq!(small, large);
}
