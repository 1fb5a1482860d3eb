//! Disks fill up, quotas are met, directories are not writable. Here each happens to a database at every point of its growth:
//! SQLite must say so, the process must live, what was committed must be there, and work must go on when there is room again.
//! Needs root for the small file system and for the other user; says when it skips.

#![allow(clippy::panic)]

use nvlite_tests::child::{self, SKIPPED};
use nvlite_tests::limits::{Limit, fill, limit, own_shm};
use nvlite_tests::needs;
use nvlite_tests::sql::{System, integrity, log, stock_file, stock_integrity};
use rusqlite::{Connection, ErrorCode};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A small tmpfs with one database.
struct Small {
    dir: tempfile::TempDir,
    system: System,
    /// KiB that are left when it is full.
    left: u64,
}

impl Small {
    fn new(system: System, kib: u64, left: u64) -> Option<Small> {
        let dir = tempfile::tempdir().expect("a directory");
        needs::tmpfs(dir.path(), kib).then_some(Small { dir, system, left })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("full.db")
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        self.system.open_with(&self.path(), 100, "&region=1MiB")
    }

    fn fill(&self) {
        fill(&self.filler(), self.left << 10);
    }

    /// A database with one row, which was opened before the disk was filled.
    fn filled_under(&self, pragma: &str) -> Connection {
        let db = self.open().unwrap_or_else(|e| panic!("{self}: {e}"));
        db.execute_batch(pragma).expect("a pragma");
        db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("there is room");
        insert(&db, 10).expect("there is room");
        self.fill();
        db
    }

    /// What was committed is there, what failed is not: before and after a close on the full disk.
    fn keeps(&self, db: Connection, rows: i64, more: impl Fn(&Connection) -> rusqlite::Result<()>) {
        assert_eq!(count(&db), rows, "{self}");
        assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{self}");
        assert!(db.close().is_ok(), "{self}: closing");
        self.goes_on(rows, more);
    }

    /// As [`keeps`](Self::keeps) for a closed database. With room again, there can be `more`.
    fn goes_on(&self, rows: i64, more: impl Fn(&Connection) -> rusqlite::Result<()>) {
        make_room(&self.filler());
        let told = || log::lines(&self.path().display().to_string());
        let db = self.open().unwrap_or_else(|e| panic!("{self}: reopen: {e} {:?}", told()));
        assert_eq!(count(&db), rows, "{self}: after a close on a full disk");
        more(&db).unwrap_or_else(|e| panic!("{self}: with room again: {e} {:?}", told()));
        assert!(count(&db) > rows, "{self}");
        assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{self}");
        drop(db);
        assert_eq!(stock_integrity(&self.path()).as_deref(), Ok("ok"), "{self}: {:?}", told());
    }
}

impl fmt::Display for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} KiB left", self.system, self.left)
    }
}

impl Drop for Small {
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
fn told_of_no_room(error: &rusqlite::Error, disk: &Small) -> String {
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull), "{disk}: {error}");
    assert!(error.to_string().contains("full"), "{disk}: {error}");
    log::told(&disk.path(), NO_ROOM).unwrap_or_else(|said| panic!("{disk}: {said}"));
    // "nvlite: FILE: no room for OPERATION: CAUSE", with the database before FILE if its name does not tell
    let base = disk.path().display().to_string();
    let lines = log::lines(&base);
    let mut told = lines.iter().filter(|line| line.contains(": no room for ") || line.contains(": no space"));
    let last = told.next_back().unwrap_or_else(|| panic!("{disk}: {lines:?}"));
    let (files, rest) = last.split_once(": no room for ").expect("just found");
    let file = files.rsplit(' ').next().unwrap_or(files);
    assert!(file.starts_with(&base) || file.contains("/nvlite-"), "{disk}: the log names no file of ours: {last}");
    let short = file.strip_prefix(&base).map_or("mapping".to_owned(), |side| format!("base{side}"));
    format!("{short}: {}", rest.split(':').next().unwrap_or(rest))
}

/// What came of more and more room.
#[derive(Default)]
struct Outcomes {
    /// How often each file and operation was the one that met the end of the room.
    met: BTreeMap<String, u32>,
    /// How often there was enough.
    done: u32,
}

impl Outcomes {
    /// Whether there was room; there must be if less was enough.
    fn note(&mut self, disk: &Small, outcome: rusqlite::Result<()>) -> bool {
        let Err(failed) = outcome else {
            self.done += 1;
            return true;
        };
        *self.met.entry(told_of_no_room(&failed, disk)).or_default() += 1;
        assert_eq!(self.done, 0, "{disk}: with less room it went through");
        false
    }

    /// Says them; both must have been met.
    fn reach_from_one_to_the_other(self, system: System) {
        println!("{system:?}: {:?}, {} went through", self.met, self.done);
        assert!(self.done == BEYOND && !self.met.is_empty(), "{system:?}: the steps do not");
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_more() {
    log::listen();
    for system in System::NVLITE {
        let mut outcomes = Outcomes::default();
        // What is there when the disk fills is allocated in larger pieces than this, but written in pieces of this.
        for left in (0..512).step_by(4).chain((512..=1536).step_by(64)) {
            let Some(disk) = Small::new(system, 12 << 10, left) else { return };
            let db = disk.filled_under("");
            let mut rows = 1;
            let failed = loop {
                match insert(&db, 3000) {
                    Ok(()) => rows += 1,
                    failed => break failed,
                }
                assert!(rows < 10_000, "{disk}: the disk never fills");
            };
            outcomes.note(&disk, failed);
            disk.keeps(db, rows, |db| insert(db, 3000));
        }
        println!("{system:?}: {:?}", outcomes.met);
    }
}

#[test]
fn a_full_disk_in_a_large_transaction_is_an_error_and_nothing_more() {
    log::listen();
    // Larger than the fast tier, and than SQLite's cache: through shadow blocks of the cold file.
    let large = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO t(b) SELECT randomblob(3900) FROM n";
    for system in System::NVLITE {
        let mut outcomes = Outcomes::default();
        for left in (0..8192).step_by(16) {
            let Some(disk) = Small::new(system, 16 << 10, left) else { return };
            let db = disk.filled_under("PRAGMA cache_size=20");
            let all = outcomes.note(&disk, db.execute_batch(large));
            disk.keeps(db, if all { 501 } else { 1 }, |db| db.execute_batch(large));
            if outcomes.done == BEYOND {
                break;
            }
        }
        outcomes.reach_from_one_to_the_other(system);
    }
}

#[test]
fn an_open_on_a_full_disk_is_an_error() {
    log::listen();
    for system in System::NVLITE {
        let mut outcomes = Outcomes::default();
        for left in (0..4096).step_by(4) {
            let Some(disk) = Small::new(system, 8 << 10, left) else { return };
            stock_file(&disk.path()).expect("there is room");
            disk.fill();
            let all = outcomes.note(&disk, disk.open().and_then(|db| insert(&db, 10)));
            disk.goes_on(if all { 2 } else { 1 }, |db| insert(db, 10));
            if outcomes.done == BEYOND {
                break;
            }
        }
        outcomes.reach_from_one_to_the_other(system);
    }
}

/// Not a test of its own: what the others run in a process of its own.
#[test]
fn in_a_child() {
    log::listen();
    let Some(task) = child::task() else { return };
    child::answer(match task.role.as_str() {
        "shm" if !own_shm("size=64m") => SKIPPED,
        "shm" => beyond_shm(&task.path, task.system),
        "log" if !own_shm("size=128m") => SKIPPED,
        "log" => {
            without_shm(&task.path.with_extension("without"));
            beside_pages(&task.path.with_extension("beside"));
            FINE
        }
        "limit" => {
            limit(Limit::FileSize, task.most);
            insert_many(&task.path, task.system)
        }
        _ => {
            // The calls themselves, for this thread and those it starts: the C library would signal the other threads.
            // SAFETY: plain system calls.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setgid, 65534) | libc::syscall(libc::SYS_setuid, 65534) }, 0);
            insert_many(&task.path, task.system)
        }
    });
}

/// All is well.
const FINE: i32 = 2;
/// Something that is expected of none.
const OTHER: i32 = 3;

/// Inserts until it fails, and answers how.
fn insert_many(path: &Path, system: System) -> i32 {
    let work = || -> rusqlite::Result<()> {
        let db = system.open_with(path, 100, "&region=1MiB")?;
        for _ in 0..3000 {
            insert(&db, 3000)?;
        }
        Ok(())
    };
    let Err(error) = work() else { return FINE };
    eprintln!("errmsg: {error}");
    log::lines("").iter().for_each(|line| eprintln!("log: {line}"));
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => 13,
        Some(ErrorCode::CannotOpen) => 14,
        Some(ErrorCode::ReadOnly) => 8,
        _ => OTHER,
    }
}

/// Works on with hardly any room in shared memory, where even the log gets no more.
fn without_shm(path: &Path) {
    let filler = Path::new("/dev/shm/filler");
    let db = System::File.open_with(path, 100, "&region=40MiB").expect("opens");
    db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("there is room");
    fill(filler, 1 << 20);
    let failed = (0..1000).find_map(|_| insert(&db, 3000).err());
    let code = failed.and_then(|e| e.sqlite_error_code());
    assert_eq!(code, Some(ErrorCode::DiskFull), "{:?}", log::lines("nvlite"));
    let rows = count(&db);
    make_room(filler);
    insert(&db, 3000).expect("there is room again");
    assert_eq!((integrity(&db).as_deref(), count(&db)), (Ok("ok"), rows + 1));
    db.close().map_err(|(_, error)| error).expect("closes");
    assert_eq!(stock_integrity(path).as_deref(), Ok("ok"));
}

/// Reads more than shared memory has room for, before the log gets its own there.
fn beside_pages(path: &Path) {
    let stock = Connection::open(path).expect("stock");
    let rows = "PRAGMA synchronous=OFF; CREATE TABLE t(a INTEGER PRIMARY KEY, b);
                WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
                INSERT INTO t(b) SELECT randomblob(3900) FROM n";
    stock.execute_batch(rows).expect("there is room");
    drop(stock);
    let db = System::File.open_with(path, 100, "&region=400MiB").expect("opens");
    fill(Path::new("/dev/shm/filler"), 40 << 20); // of which the log has yet to get 32
    db.query_row("SELECT sum(b > x'80') FROM t", [], |_| Ok(())).expect("reads");
    (0..200).for_each(|n| insert(&db, 3000).unwrap_or_else(|e| panic!("{n}: {e} {:?}", log::lines("nvlite"))));
    db.close().map_err(|(_, error)| error).expect("closes");
}

/// Works on more than shared memory has room for, which somebody else has filled in the meantime.
fn beyond_shm(path: &Path, system: System) -> i32 {
    let work = || -> rusqlite::Result<()> {
        // on `ram` the cold file, where large transactions go, has no room either
        let ram = system == System::Ram;
        let more = if ram { "&region=40MiB&region_dir=/dev/shm" } else { "&region=40MiB" };
        let db = system.open_with(path, 100, more)?;
        insert(&db, 3000)?;
        // on `file` the log has yet to get 5 of it
        fill(Path::new("/dev/shm/filler"), if ram { 6 << 20 } else { 11 << 20 });
        (0..2500).try_for_each(|_| insert(&db, 3000))?;
        if !ram {
            db.execute_batch("BEGIN")?;
            (0..3500).try_for_each(|_| insert(&db, 3000))?;
            db.execute_batch("COMMIT; UPDATE t SET b=randomblob(2000)")?;
        }
        assert_eq!((integrity(&db)?.as_str(), count(&db)), ("ok", if ram { 2502 } else { 6002 }));
        db.close().map_err(|(_, error)| error)
    };
    match work() {
        Ok(()) => FINE,
        Err(error) => {
            eprintln!("{error} {:?}", log::lines("nvlite"));
            OTHER
        }
    }
}

#[test]
fn shared_memory_that_is_too_small_is_a_smaller_fast_tier() {
    log::listen();
    for system in System::NVLITE {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("large.db");
        stock_file(&path).expect("stock");
        let Some((code, said)) = child::run("shm", &path, system, 0) else { return };
        assert_eq!(code, FINE, "{system:?}: {said}");
        assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{system:?}");
    }
}

#[test]
fn shared_memory_without_room_for_the_log_is_an_error_and_nothing_more() {
    log::listen();
    let dir = tempfile::tempdir().expect("a directory");
    let Some((code, said)) = child::run("log", &dir.path().join("log.db"), System::File, 0) else { return };
    assert_eq!(code, FINE, "{said}");
}

/// Runs the role in a child. It must end with one of `codes`, whose text SQLite must tell, and have logged a line that names
/// a file of the database and one of `causes`.
fn in_child(role: &str, path: &Path, system: System, limit: u64, codes: &[(i32, &str)], causes: &[&str]) -> String {
    let (code, said) = child::run(role, path, system, limit).expect("needs no right");
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
            stock_file(&path).expect("stock");
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
