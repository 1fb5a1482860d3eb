//! What a region is granted on: a medium is taken at its word, or refused with the reason, and says what it survives.

use crate::support::*;
use nvlite_engine::medium::{is_tmpfs, probe};
use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::{Connection, Result, ffi};
use std::path::Path;
use tempfile::TempDir;

/// A directory on a disk, if this machine has one where temporary files or cargo's go.
fn on_disk() -> Option<TempDir> {
    let at = [std::env::temp_dir(), env!("CARGO_TARGET_TMPDIR").into()];
    let found = at.into_iter().find(|dir| !is_tmpfs(dir).unwrap());
    if found.is_none() {
        crate::needs::skipped("disk for temporary files");
    }
    found.map(|dir| TempDir::new_in(dir).unwrap())
}

fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap()
}

fn write(options: OpenOptions, path: &Path) -> Result<Connection> {
    let db = options.region("16MiB").open(path)?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(x)")?;
    Ok(db)
}

fn listed(dir: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(dir.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "app.db").collect()
}

fn refused(dir: &TempDir, medium: Medium, why: &str) {
    let _log = Site::new(Medium::File);
    logged();
    let (options, path) = (OpenOptions::new().medium(medium), dir.path().join("app.db"));
    let error = write(options, &path).map(drop).unwrap_err();
    assert_eq!(code(&error), ffi::SQLITE_CANTOPEN, "{medium:?}: {error}");
    let log = logged();
    assert!(log.iter().any(|line| line.starts_with("nvlite: ") && line.contains(why)), "{medium:?}: {log:?}");
    assert_eq!(listed(dir), Vec::<String>::new(), "{medium:?} left something");
    assert_eq!(std::fs::metadata(path).map_or(0, |file| file.len()), 0);
    // on what is there, the name is as good as ever
    drop(write(OpenOptions::new(), &dir.path().join("app.db")).unwrap());
}

#[test]
fn ram_is_refused_where_the_region_would_not_be_in_memory() {
    if let Some(dir) = on_disk() {
        refused(&dir, Medium::Ram, "needs the region on tmpfs");
    }
}

#[test]
fn dax_is_refused_where_nothing_is_mapped_synchronously() {
    for dir in on_disk().into_iter().chain([in_memory()]).filter(|dir| !probe(dir.path())) {
        refused(&dir, Medium::Dax, "MAP_SYNC does not succeed");
    }
}

#[test]
fn the_status_says_which_medium_it_is_and_what_a_commit_survives() {
    let says = |options: OpenOptions, dir: &TempDir| {
        let db = write(options, &dir.path().join("app.db")).unwrap();
        let row = |name: &str| text(&db, &format!("SELECT value FROM nvlite_stat WHERE name='{name}'"));
        (row("medium"), row("survives"))
    };
    let pair = |medium: &str, survives: &str| (medium.to_owned(), survives.to_owned());
    let (processes, power) = ("the death of all processes", "power loss");
    // `ram` is never chosen: nobody loses a database who did not ask for it by name
    assert_eq!(says(OpenOptions::new().medium(Medium::Auto), &in_memory()), pair("file", processes));
    assert_eq!(says(OpenOptions::new().medium(Medium::File), &in_memory()), pair("file", processes));
    assert_eq!(says(OpenOptions::new().medium(Medium::Ram), &in_memory()), pair("ram", processes));
    let Some(dir) = on_disk() else { return };
    let shm = in_memory();
    assert_eq!(says(OpenOptions::new().medium(Medium::Ram).region_dir(shm.path()), &dir), pair("ram", processes));
    assert_eq!(says(OpenOptions::new().medium(Medium::File).region_dir(shm.path()), &dir), pair("file", processes));
    assert_eq!(says(OpenOptions::new().medium(Medium::File), &dir), pair("file", power));
    let found = if probe(dir.path()) { "dax" } else { "file" };
    assert_eq!(says(OpenOptions::new().medium(Medium::Auto), &dir), pair(found, power));
}
