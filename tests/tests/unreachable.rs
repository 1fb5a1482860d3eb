//! Who has the region but not the mapping of those who use it must not open the database: he would be a second truth (P13).
//! Containers and mount namespaces share a directory and have a `/dev/shm` each. He is told which file and why, and the others
//! go on as if he had never come.

#![allow(clippy::panic)]

use nvlite_engine::base::Result;
use nvlite_engine::format::superblock::{SIZE, Superblock};
use nvlite_engine::medium::FileDisk;
use nvlite_engine::{Disk as _, Durability::Full, Error, MediumKind, Options, Store};
use nvlite_tests::needs;
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{all_are, commit, mapping_of};
use nvlite_tests::sql::{System, integrity, log, stock_integrity};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn superblock(region: &Path) -> Superblock {
    let bytes = std::fs::read(region).expect("the region");
    Superblock::choose(&bytes[..SIZE], &bytes[SIZE..2 * SIZE]).expect("a superblock")
}

fn mapping(region: &Path) -> PathBuf {
    mapping_of(region).expect("a superblock")
}

/// Not a test of its own: what the other machine's process does. Says the error of an open, or nothing.
#[test]
fn in_a_child() {
    log::listen();
    let Ok(path) = std::env::var("NVLITE_TEST_PATH") else { return };
    let opened = System::File.open_with(Path::new(&path), 100, "&region=1MiB");
    if let Err(error) = opened.and_then(|db| db.execute_batch("SELECT count(*) FROM t")) {
        println!("error: {:?} {error} {:?}", error.sqlite_error_code(), log::lines("nvlite"));
    }
}

/// Opens the database in a process that has another `/dev/shm`, with an empty file of the mapping's name and length if
/// `forged`. Answers what it says; `None` where that may not be done.
fn open_elsewhere(path: &Path, forged: bool) -> Option<String> {
    let mapping = mapping(&path.with_file_name("app.db-nvlite"));
    if !mapping.starts_with("/dev/shm") {
        needs::skipped("room in /dev/shm");
        return None;
    }
    let len = std::fs::metadata(&mapping).expect("the mapping").len();
    let script = r#"[ -z "$FORGED" ] || truncate -s "$LEN" "$FORGED"; exec "$@""#;
    let mut command = needs::other_shm(script)?;
    command.args(["sh".as_ref(), std::env::current_exe().expect("this test").as_os_str()]);
    command.args(["--exact", "in_a_child", "--nocapture"]);
    command.env("NVLITE_TEST_PATH", path).env("LEN", len.to_string());
    command.env("FORGED", if forged { mapping.as_os_str() } else { "".as_ref() });
    let said = command.output().expect("a child");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text} {}", String::from_utf8_lossy(&said.stderr));
    Some(text)
}

#[test]
fn p13_a_process_with_another_dev_shm_is_told_so_and_harms_nobody() {
    // Failure: it takes the users of the mapping for dead and recovers under them, or makes a mapping of its own.
    log::listen();
    let scratch = System::File.scratch();
    let path = scratch.path("app.db");
    let region = scratch.path("app.db-nvlite");
    let db = System::File.open_with(&path, 100, "&region=1MiB").expect("opens");
    db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").expect("creates");
    let mut rows = 0;
    for forged in [false, true] {
        db.execute_batch("INSERT INTO t(b) VALUES(randomblob(3000))").expect("inserts");
        rows += 1;
        let before = superblock(&region);
        let Some(said) = open_elsewhere(&path, forged) else { return };
        let cause = if forged { "is another one" } else { "cannot be opened from here" };
        let (of_mapping, of_region) = (mapping(&region), &region);
        for part in [&of_region.to_string_lossy(), &of_mapping.to_string_lossy(), cause, "same mount namespace"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        assert!(said.contains("CannotOpen"), "{said}");
        assert_eq!(superblock(&region), before, "forged {forged}: the region was written");
        assert!(mapping(&region).exists(), "forged {forged}: the mapping is gone");
        db.execute_batch("INSERT INTO t(b) VALUES(randomblob(3000))").expect("the first goes on");
        rows += 1;
        let joined = System::File.open_with(&path, 100, "&region=1MiB").expect("who can reach it joins");
        let count: i64 = joined.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("a count");
        assert_eq!(count, rows);
        assert_eq!(integrity(&joined).as_deref(), Ok("ok"));
    }
    drop(db);
    assert_eq!(scratch.names(), ["app.db"], "closed cleanly");
    assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"));
}

/// The cause that is told, the mapping that is named, and what is changed.
type Wrong<'a> = (&'a str, &'a Path, &'a dyn Fn(&mut Superblock));

/// Writes both copies.
fn put(region: &Path, superblock: &Superblock) {
    let disk = FileDisk::open(region).expect("the region");
    (0..2).for_each(|copy| disk.write_at(copy * SIZE as u64, &superblock.encode()).expect("written"));
}

#[test]
fn p13_a_mapping_that_is_not_the_one_the_superblock_describes_is_refused() {
    // Failure: two builds of another layout, or two mappings, behind one database.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.db");
    let region = dir.path().join("app.db-nvlite");
    let attach = || -> Result<Arc<Store>> {
        let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
        Store::attach(Arc::new(PlainBase::new(&path)), &options)
    };
    let first = attach().expect("attached");
    let mut s = first.session().expect("a session");
    commit(&mut s, 4, 2..=4, 1, Full).expect("a commit");
    let (good, there) = (superblock(&region), mapping(&region));
    let mut n = 1;
    let mut go_on = |context: &str| {
        n += 1;
        commit(&mut s, 4, 2..=4, n, Full).unwrap_or_else(|e| panic!("{context}: {e}"));
        let joined = attach().unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(all_are(&mut joined.session().expect("a session"), 2..=4, n).expect("an answer"), "{context}");
        assert!(there.exists(), "{context}");
    };
    let refused = |cause: &str, names: &Path| match attach().map(|_| ()) {
        Err(Error::CantOpen { path, reason }) => {
            assert_eq!(path, region, "{cause}");
            let all = [cause, &names.to_string_lossy(), "same mount namespace, same nvlite version"];
            all.into_iter().for_each(|part| assert!(reason.contains(part), "{part} is not in: {reason}"));
        }
        other => panic!("{cause}: {other:?}"),
    };
    let gone = dir.path().join("gone");
    let wrong: [Wrong; 5] = [
        ("is another one", &there, &|s| s.nonce[3] ^= 1),
        ("has another layout", &there, &|s| s.shape ^= 1),
        ("another boot", &there, &|s| s.boot[0] ^= 1),
        ("cannot be opened from here", &there, &|s| s.mapping_len += 4096),
        ("cannot be opened from here", &gone, &|s| s.mapping = gone.as_os_str().as_bytes().to_vec()),
    ];
    for (cause, names, change) in wrong {
        let mut bad = good.clone();
        change(&mut bad);
        put(&region, &bad);
        refused(cause, names);
        assert_eq!(superblock(&region), bad, "{cause}: who was refused wrote to the region");
        put(&region, &good);
        go_on(cause);
    }
    // the file of that name is not the one that the superblock means
    let file = FileDisk::open(&there).expect("the mapping");
    file.write_at(good.mapping_len - 4096, &[!good.nonce[0]]).expect("written");
    refused("is another one", &there);
    file.write_at(good.mapping_len - 4096, &good.nonce[..1]).expect("written");
    go_on("another file's nonce");
    // nor may he write to a cold file that is not theirs
    let (cold, aside) = (dir.path().join("app.db-cold"), dir.path().join("aside"));
    std::fs::rename(&cold, &aside).expect("renames");
    match attach().map(|_| ()) {
        Err(Error::CantOpen { path, reason }) => {
            assert!(path == cold && reason.contains("is gone, while others"), "{}: {reason}", path.display());
        }
        other => panic!("no cold file: {other:?}"),
    }
    assert!(!cold.exists(), "who was refused made another one");
    std::fs::rename(&aside, &cold).expect("renames");
    go_on("the cold file gone");
    drop(s);
    first.close().expect("a clean close");
    assert!(!region.exists() && !there.exists(), "closed cleanly");
}
