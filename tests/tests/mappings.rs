//! The shared mapping is a file that no database needs once nobody has it open. Whoever is killed leaves it behind; whoever
//! opens the database next takes it away, and nobody takes away another's.
#![allow(missing_docs)]

use nvlite_engine::{Durability::Full, MediumKind, Options, Store};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{all_are, commit};
use nvlite_tests::sql::{System, bank, integrity};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The region that the mark in a base file names, as its side files' names have it.
fn region_of(base: &Path) -> String {
    let header = std::fs::read(base).expect("the base file");
    assert_eq!(&header[72..76], b"nvl1", "it is marked");
    header[76..92].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Mappings of a region, wherever they may lie.
fn mappings(id: &str, beside: &Path) -> Vec<PathBuf> {
    let names = |dir: &Path| std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    let of_region =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("nvlite-{id}")));
    names(Path::new("/dev/shm")).chain(names(beside)).filter(of_region).collect()
}

/// Starts a process that writes, waits until it has committed, and kills it.
fn write_and_die(system: System, path: &Path) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kill_worker"))
        .args([system.name(), path.to_str().expect("a plain path"), "1", "write", "7"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let acknowledged = lines.map_while(Result::ok).filter(|line| line.starts_with("ack")).take(5).count();
    child.kill().expect("the kill");
    child.wait().expect("its end");
    assert_eq!(acknowledged, 5);
}

#[test]
fn p13_the_mapping_of_the_killed_goes_with_the_next_clean_close() {
    // Failure: each kill leaves a file of megabytes in memory that no process is ever going to remove.
    for system in System::NVLITE {
        let scratch = system.scratch();
        let path = scratch.path("test.db");
        let dir = path.parent().expect("a directory").to_owned();
        let mut db = system.open(&path, 1000).expect("opened");
        bank::found(&mut db).expect("a bank");
        drop(db);
        let mut ids = Vec::new();
        for _ in 0..2 {
            write_and_die(system, &path);
            ids.push(region_of(&path));
        }
        assert_eq!(ids[0], ids[1], "the second was killed in what it had recovered");
        let left = mappings(&ids[0], &dir);
        assert_eq!(left.len(), 1, "{system:?}: that of the second, and not that of the first: {left:?}");
        // killed before the superblock named it, or when it did not any more
        let unnamed = left[0].with_file_name(format!("{}0", left[0].file_name().expect("a name").to_string_lossy()));
        std::fs::write(&unnamed, "half made").expect("written");
        let db = system.open(&path, 1000).expect("opened");
        assert_eq!(integrity(&db).expect("an answer"), "ok");
        let live = mappings(&ids[0], &dir);
        assert!(live.len() == 1 && live != left && live[0] != unnamed, "{system:?}: {left:?}, then {live:?}");
        drop(db);
        assert_eq!(mappings(&ids[0], &dir), [] as [PathBuf; 0], "{system:?}");
        assert_eq!(scratch.names(), ["test.db"], "{system:?}");
    }
}

#[test]
fn p13_who_opens_a_copy_leaves_the_mapping_of_the_original_alone() {
    // Failure: base and region are copied while they are in use, and the first who opens the copy removes the mapping that
    // the superblock names. Nobody can join those who have the original open any more.
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
    let attach = |dir: &Path| {
        let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
        Store::attach(Arc::new(PlainBase::new(&dir.join("a.db"))), &options)
    };
    let original = attach(here.path()).expect("attached");
    commit(&mut original.session().expect("a session"), 4, 2..=4, 1, Full).expect("a commit");
    let id = region_of(&here.path().join("a.db"));
    let before = mappings(&id, here.path());
    for name in ["a.db", "a.db-nvlite", "a.db-cold"] {
        std::fs::copy(here.path().join(name), there.path().join(name)).expect("a copy");
    }
    let copy = attach(there.path()).expect("the copy is recovered");
    assert!(all_are(&mut copy.session().expect("a session"), 2..=4, 1).expect("an answer"));
    assert!(mappings(&id, here.path()).contains(&before[0]), "the original's mapping is gone");
    let joined = attach(here.path()).expect("others can still join the original");
    copy.close().expect("a clean close");
    commit(&mut joined.session().expect("a session"), 4, 2..=4, 2, Full).expect("a commit");
    assert!(all_are(&mut original.session().expect("a session"), 2..=4, 2).expect("an answer"));
    joined.close().expect("a close");
    original.close().expect("a clean close");
    assert_eq!(mappings(&id, here.path()), [] as [PathBuf; 0]);
}

#[test]
fn p13_the_last_to_leave_a_failed_region_takes_its_mapping_along() {
    // Failure: a region that has failed can only be closed and recovered, and whoever closes it leaves its mapping behind.
    let dir = tempfile::tempdir().expect("a directory");
    let (path, other) = (dir.path().join("a.db"), dir.path().join("other"));
    let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
    let attach = || Store::attach(Arc::new(PlainBase::new(&path)), &options).expect("attached");
    let (first, second) = (attach(), attach());
    commit(&mut first.session().expect("a session"), 4, 2..=4, 1, Full).expect("a commit");
    let id = region_of(&path);
    // another program replaces the base file, which is noticed before anything is written to it
    std::fs::copy(&path, &other).expect("a copy");
    std::fs::rename(&other, &path).expect("replaced");
    assert!(first.checkpoint().is_err());
    drop(first);
    assert_eq!(mappings(&id, dir.path()).len(), 1, "somebody is there still");
    drop(second);
    assert_eq!(mappings(&id, dir.path()), [] as [PathBuf; 0]);
    assert!(dir.path().join("a.db-nvlite").exists(), "the region stays, to be recovered");
}
