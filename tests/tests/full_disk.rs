//! Disks fill up, quotas are met, directories are not writable. Here each happens to a database at every point of its growth:
//! SQLite must say so, the process must live, what was committed must be there, and work must go on when there is room again.
//! Needs root for the small file system and for the other user; says when it skips.

#![allow(clippy::panic)]

use nvlite_tests::limits::{Limit, fill, limit, own_shm};
use nvlite_tests::needs;
use nvlite_tests::sql::{System, integrity, log, stock_integrity};
use rusqlite::{Connection, ErrorCode};
use std::ffi::CString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

/// A small tmpfs.
struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    fn new(kib: u64) -> Option<Mount> {
        let dir = tempfile::tempdir().expect("a directory");
        needs::tmpfs(dir.path(), kib).then_some(Mount { dir })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(path) = self.dir.path().to_str().and_then(|path| CString::new(path).ok()) {
            // SAFETY: the string ends with a zero and outlives the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// Makes room again. A kernel may give the blocks of a deleted file back a moment later.
fn make_room(filler: &Path) {
    fs::remove_file(filler).expect("removes");
    let dir = CString::new(filler.parent().and_then(Path::to_str).expect("a directory")).expect("no zero");
    // SAFETY: plain numbers, for which zeros are valid.
    let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
    while room.f_bavail < room.f_blocks / 2 + 1 {
        // SAFETY: the path ends with a zero, and both outlive the call.
        assert_eq!(unsafe { libc::statvfs(dir.as_ptr(), &raw mut room) }, 0);
        std::thread::yield_now();
    }
}

fn insert(db: &Connection, bytes: u64) -> rusqlite::Result<()> {
    db.execute("INSERT INTO t(b) VALUES(randomblob(?1))", [bytes as i64]).map(|_| ())
}

fn count(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("reads on a full disk")
}

/// What the kernel says of a full file system, and of a full quota of one.
const NO_ROOM: &[&str] = &["no space left on device", "cannot allocate memory"];

/// Steps after the first that went through, which must go through, too.
const BEYOND: u32 = 8;

/// The error of a full disk: SQLite's text says what, the log says which file and why. Answers file and operation.
fn told_of_no_room(error: &rusqlite::Error, path: &Path, context: &str) -> String {
    assert!(error.to_string().contains("full"), "{context}: {error}");
    log::told(path, NO_ROOM).unwrap_or_else(|said| panic!("{context}: {said}"));
    // "nvlite: FILE: no room for OPERATION: CAUSE", with the database before FILE if its name does not tell
    let lines = log::lines(&path.display().to_string());
    let mut told = lines.iter().filter(|line| line.contains(": no room for ") || line.contains(": no space"));
    let last = told.next_back().unwrap_or_else(|| panic!("{context}: {lines:?}"));
    let (files, rest) = last.split_once(": no room for ").expect("just found");
    let file = files.rsplit(' ').next().unwrap_or(files);
    let base = path.display().to_string();
    assert!(file.starts_with(&base) || file.contains("/nvlite-"), "{context}: the log names no file of ours: {last}");
    let short = file.strip_prefix(&base).map_or("mapping".to_owned(), |side| format!("base{side}"));
    format!("{short}: {}", rest.split(':').next().unwrap_or(rest))
}

/// How often each file and operation was the one that met the end of the room.
#[derive(Default)]
struct Met(std::collections::BTreeMap<String, u32>);

impl Met {
    fn note(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_more() {
    log::listen();
    for system in System::NVLITE {
        let mut met = Met::default();
        // What is there when the disk fills is allocated in larger pieces than this, but written in pieces of this.
        for left in (0..512).step_by(4).chain((512..=1536).step_by(64)) {
            let Some(mount) = Mount::new(12 << 10) else { return };
            let context = format!("{system:?}, {left} KiB left");
            let (path, filler) = (mount.dir.path().join("full.db"), mount.dir.path().join("filler"));
            let db = system.open_with(&path, 100, "&region=1MiB").unwrap_or_else(|e| panic!("{context}: {e}"));
            db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").unwrap_or_else(|e| panic!("{context}: {e}"));
            insert(&db, 10).expect("there is room");
            fill(&filler, left << 10);
            let mut rows = 1;
            let failed = loop {
                match insert(&db, 3000) {
                    Ok(()) => rows += 1,
                    Err(e) => break e,
                }
                assert!(rows < 10_000, "{context}: the disk never fills");
            };
            assert_eq!(failed.sqlite_error_code(), Some(ErrorCode::DiskFull), "{context}: {failed}");
            met.note(told_of_no_room(&failed, &path, &context));
            assert_eq!(count(&db), rows, "{context}: what was committed is there, what failed is not");
            assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{context}");
            // Closed while there is no room, and opened again.
            let closed = db.close();
            assert!(closed.is_ok(), "{context}: closing");
            make_room(&filler);
            let db = system.open_with(&path, 100, "&region=1MiB").unwrap_or_else(|e| panic!("{context}: reopen: {e}"));
            assert_eq!(count(&db), rows, "{context}: after a close on a full disk");
            let told = || log::lines(&path.display().to_string());
            insert(&db, 3000).unwrap_or_else(|e| panic!("{context}: with room again: {e} {:?}", told()));
            assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{context}");
            drop(db);
            assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{context}: {:?}", told());
        }
        println!("{system:?}: {:?}", met.0);
    }
}

#[test]
fn a_full_disk_in_a_large_transaction_is_an_error_and_nothing_more() {
    log::listen();
    for system in System::NVLITE {
        let (mut met, mut done) = (Met::default(), 0);
        for left in (0..8192).step_by(16) {
            let Some(mount) = Mount::new(16 << 10) else { return };
            let context = format!("{system:?}, {left} KiB left");
            let (path, filler) = (mount.dir.path().join("full.db"), mount.dir.path().join("filler"));
            let db = system.open_with(&path, 100, "&region=1MiB").unwrap_or_else(|e| panic!("{context}: {e}"));
            db.execute_batch("PRAGMA cache_size=20; CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("there is room");
            insert(&db, 10).expect("there is room");
            fill(&filler, left << 10);
            // Larger than the fast tier, and than SQLite's cache: through shadow blocks of the cold file.
            let large = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                         INSERT INTO t(b) SELECT randomblob(3900) FROM n";
            let rows = match db.execute_batch(large) {
                Ok(()) => {
                    done += 1;
                    501
                }
                Err(failed) => {
                    assert_eq!(failed.sqlite_error_code(), Some(ErrorCode::DiskFull), "{context}: {failed}");
                    assert_eq!(done, 0, "{context}: with less room it went through");
                    met.note(told_of_no_room(&failed, &path, &context));
                    1
                }
            };
            assert_eq!(count(&db), rows, "{context}: all of it or nothing");
            assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{context}");
            assert!(db.close().is_ok(), "{context}: closing");
            make_room(&filler);
            let db = system.open_with(&path, 100, "&region=1MiB").unwrap_or_else(|e| panic!("{context}: reopen: {e}"));
            assert_eq!(count(&db), rows, "{context}: after a close on a full disk");
            let told = || log::lines(&path.display().to_string());
            db.execute_batch(large).unwrap_or_else(|e| panic!("{context}: with room again: {e} {:?}", told()));
            drop(db);
            assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{context}: {:?}", told());
            if done == BEYOND {
                break;
            }
        }
        println!("{system:?}: {:?}, {done} went through", met.0);
        assert!(
            done == BEYOND && !met.0.is_empty(),
            "{system:?}: the steps do not reach from one outcome to the other"
        );
    }
}

#[test]
fn an_open_on_a_full_disk_is_an_error() {
    log::listen();
    for system in System::NVLITE {
        let (mut met, mut done) = (Met::default(), 0);
        for left in (0..4096).step_by(4) {
            let Some(mount) = Mount::new(8 << 10) else { return };
            let context = format!("{system:?}, {left} KiB left");
            let path = mount.dir.path().join("full.db");
            let stock = Connection::open(&path).expect("creates");
            stock.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t(b) VALUES(1)").expect("stock");
            drop(stock);
            let filler = mount.dir.path().join("filler");
            fill(&filler, left << 10);
            let opened = system.open_with(&path, 100, "&region=1MiB");
            let rows = match opened.and_then(|db| insert(&db, 10)) {
                Ok(()) => {
                    done += 1;
                    2
                }
                Err(failed) => {
                    let code = failed.sqlite_error_code();
                    assert_eq!(code, Some(ErrorCode::DiskFull), "{context}: {failed}");
                    assert_eq!(done, 0, "{context}: with less room it went through");
                    met.note(told_of_no_room(&failed, &path, &context));
                    1
                }
            };
            make_room(&filler);
            let db = system.open_with(&path, 100, "&region=1MiB").expect("opens with room");
            assert_eq!(count(&db), rows, "{context}");
            insert(&db, 10).unwrap_or_else(|e| {
                panic!("{context}: with room again: {e} {:?}", log::lines(&path.display().to_string()))
            });
            assert_eq!(count(&db), rows + 1, "{context}");
            if done == BEYOND {
                break;
            }
        }
        println!("{system:?}: {:?}, {done} went through", met.0);
        assert!(
            done == BEYOND && !met.0.is_empty(),
            "{system:?}: the steps do not reach from one outcome to the other"
        );
    }
}

/// In the child: what the parent asked for by environment.
fn child(role: &str, path: &Path, system: System) -> i32 {
    if role == "limit" {
        let bytes: u64 = std::env::var("NVLITE_TEST_LIMIT").ok().and_then(|n| n.parse().ok()).expect("a limit");
        limit(Limit::FileSize, bytes);
    } else if role == "shm" {
        return match own_shm("size=64m") {
            true => beyond_shm(path, system),
            false => SKIPPED,
        };
    } else {
        // The calls themselves, for this thread and those it starts: the C library would signal the other threads.
        // SAFETY: plain system calls.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setgid, 65534) | libc::syscall(libc::SYS_setuid, 65534) }, 0);
    }
    let work = || -> rusqlite::Result<()> {
        let db = system.open_with(path, 100, "&region=1MiB")?;
        for _ in 0..3000 {
            insert(&db, 3000)?;
        }
        Ok(())
    };
    let Err(error) = work() else { return 0 };
    eprintln!("errmsg: {error}");
    log::lines("").iter().for_each(|line| eprintln!("log: {line}"));
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => 13,
        Some(ErrorCode::CannotOpen) => 14,
        Some(ErrorCode::ReadOnly) => 8,
        _ => 1,
    }
}

/// The exit status, less 100, of a child that may not do what it is there for.
const SKIPPED: i32 = 50;

/// Works on more than shared memory has room for, which somebody else has filled in the meantime.
fn beyond_shm(path: &Path, system: System) -> i32 {
    let work = || -> rusqlite::Result<()> {
        // on `ram` the cold file, where large transactions go, has no room either
        let ram = system == System::Ram;
        let more = if ram { "&region=40MiB&region_dir=/dev/shm" } else { "&region=40MiB" };
        let db = system.open_with(path, 100, more)?;
        insert(&db, 3000)?;
        fill(Path::new("/dev/shm/filler"), 6 << 20);
        (0..2500).try_for_each(|_| insert(&db, 3000))?;
        if !ram {
            db.execute_batch("BEGIN")?;
            (0..3500).try_for_each(|_| insert(&db, 3000))?;
            db.execute_batch("COMMIT; UPDATE t SET b=randomblob(2000)")?;
        }
        assert_eq!((integrity(&db)?.as_str(), count(&db)), ("ok", if ram { 2501 } else { 6001 }));
        db.close().map_err(|(_, error)| error)
    };
    match work() {
        Ok(()) => 2,
        Err(error) => {
            eprintln!("{error} {:?}", log::lines("nvlite"));
            1
        }
    }
}

#[test]
fn shared_memory_that_is_too_small_is_a_smaller_fast_tier() {
    log::listen();
    for system in System::NVLITE {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("large.db");
        let db = Connection::open(&path).expect("creates");
        db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("stock");
        drop(db);
        match run_child("shm", &path, system, 0) {
            (SKIPPED, _) => return needs::skipped("right to a mount namespace"),
            (code, said) => assert_eq!(code, 2, "{system:?}: {said}"),
        }
        assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{system:?}");
    }
}

/// Not a test of its own: what the others run in a process of its own.
#[test]
fn in_a_child() {
    log::listen();
    let Ok(role) = std::env::var("NVLITE_TEST_ROLE") else { return };
    let path = std::env::var("NVLITE_TEST_PATH").expect("a path");
    let system = std::env::var("NVLITE_TEST_SYSTEM").ok().and_then(|name| System::named(&name)).expect("a system");
    std::process::exit(100 + child(&role, Path::new(&path), system));
}

/// Runs the role in a child; its exit status, less 100, and what it said.
fn run_child(role: &str, path: &Path, system: System, limit: u64) -> (i32, String) {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "in_a_child", "--nocapture"])
        .env("NVLITE_TEST_ROLE", role)
        .env("NVLITE_TEST_PATH", path)
        .env("NVLITE_TEST_SYSTEM", system.name())
        .env("NVLITE_TEST_LIMIT", limit.to_string())
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), None, "a signal: {role}, {system:?}, {limit}: {said}");
    (output.status.code().unwrap_or(0) - 100, said)
}

/// Runs the role in a child. It must end with one of `codes`, whose text SQLite must tell, and have logged a line that names
/// a file of the database and one of `causes`.
fn in_child(role: &str, path: &Path, system: System, limit: u64, codes: &[(i32, &str)], causes: &[&str]) -> String {
    let (code, said) = run_child(role, path, system, limit);
    let context = format!("{role}, {system:?}, {limit}: {said}");
    let Some((_, text)) = codes.iter().find(|(wanted, _)| *wanted == code) else { panic!("code {code}: {context}") };
    let texts = said.lines().find(|line| line.starts_with("errmsg: ") && line.contains(text));
    assert!(texts.is_some(), "the text is not \"{text}\": {context}");
    let file = path.display().to_string();
    let ours = |line: &&str| line.starts_with("log: ") && line.contains(" nvlite: ") && line.contains(&file);
    let names = |line: &&str| causes.iter().any(|cause| line.to_lowercase().contains(cause));
    let told = said.lines().filter(ours).find(names);
    told.unwrap_or_else(|| panic!("nothing about {file} with {causes:?}: {context}")).to_owned()
}

#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    log::listen();
    for system in System::NVLITE {
        for kib in [0, 4, 64, 300, 1024, 1100, 1500, 2000, 4000] {
            let scratch = system.scratch();
            let path = scratch.path("limited.db");
            let db = system.open(&path, 100).expect("opens");
            db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("creates");
            drop(db);
            let codes = [(13, "full"), (14, "unable to open")];
            let told = in_child("limit", &path, system, kib << 10, &codes, &["rlimit_fsize", "file too large"]);
            println!("{system:?}, {kib} KiB: {told}");
            let db =
                system.open_with(&path, 100, "&region=1MiB").unwrap_or_else(|e| panic!("{system:?}, {kib} KiB: {e}"));
            assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{system:?}, {kib} KiB");
            insert(&db, 10).expect("there is no limit here");
        }
    }
}

#[test]
fn a_directory_that_is_not_writable_is_an_error() {
    log::listen();
    if !needs::root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    for system in System::NVLITE {
        for (dir_mode, file_mode) in [(0o555, 0o666), (0o555, 0o444), (0o777, 0o444)] {
            let scratch = system.scratch();
            let path = scratch.path("others.db");
            let stock = Connection::open(&path).expect("creates");
            stock.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("stock");
            drop(stock);
            let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
            set(&path, file_mode);
            set(path.parent().expect("a directory"), dir_mode);
            let codes = [(8, "readonly"), (14, "unable to open")];
            let told = in_child("nobody", &path, system, 0, &codes, &["permission denied", "read-only"]);
            println!("{system:?}, {dir_mode:o}, {file_mode:o}: {told}");
            assert_eq!(scratch.names(), ["others.db"], "{system:?}: nothing is left behind");
            assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"));
        }
    }
}
