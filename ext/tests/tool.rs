//! The operator's tool, as an operator calls it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::Connection;
use serde_json::Value;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn nvlite(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nvlite")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let (code, text) = nvlite(arguments);
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn filled(path: &Path) -> Connection {
    let db = OpenOptions::new().region("16MiB").open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t SELECT i FROM n",
    )
    .unwrap();
    db
}

fn site() -> (TempDir, PathBuf, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("app.db");
    let text = path.display().to_string();
    (dir, path, text)
}

#[test]
fn status_of_a_live_and_of_a_closed_database() {
    let (_dir, path, db) = site();
    let live = filled(&path);
    let (code, status) = json(&["status", "--db", &db, "--json"]);
    assert_eq!((code, &status["state"]), (0, &Value::from("marked")));
    assert!(status["stat"].as_object().unwrap().len() > 3);
    assert_eq!(status["region"].as_str().unwrap().len(), 32);
    live.execute_batch("INSERT INTO t VALUES (0)").unwrap();
    drop(live);
    let (code, status) = json(&["status", "--db", &db, "--json"]);
    assert_eq!((code, &status["state"], &status["page_size"]), (0, &"stock".into(), &4096.into()));
    let (code, text) = nvlite(&["status", "--db", &db]);
    assert!(code == 0 && text.contains("stock SQLite file"), "{text}");
}

#[test]
fn verify_finds_what_is_wrong() {
    let (_dir, path, db) = site();
    let live = filled(&path);
    let (code, verdict) = json(&["verify", "--db", &db, "--json"]);
    assert_eq!((code, &verdict["ok"]), (0, &true.into()), "{verdict}");
    drop(live);
    assert_eq!(nvlite(&["verify", "--db", &db]).0, 0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..4200].fill(0xEE);
    std::fs::write(&path, &bytes).unwrap();
    let (code, verdict) = json(&["verify", "--db", &db, "--json"]);
    assert_eq!((code, &verdict["ok"]), (1, &false.into()), "{verdict}");
    std::fs::write(&path, "no database at all").unwrap();
    assert_eq!(nvlite(&["verify", "--db", &db]).0, 1);
}

#[test]
fn verify_finds_a_bit_that_flips_in_memory() {
    // Failure: a page in memory that is not what was committed is told by nobody as long as SQLite can make sense of it.
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let path = dir.path().join("app.db");
    let live = OpenOptions::new().region("16MiB").medium(Medium::Ram).open(&path).unwrap();
    live.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES('found in a block'), ('found there, too')").unwrap();
    let verify = || {
        let (code, verdict) = json(&["verify", "--db", &path.display().to_string(), "--json"]);
        let checks = verdict["checks"].as_array().unwrap().clone();
        let pages =
            checks.iter().find(|check| check["name"] == "pages").unwrap()["detail"].as_str().unwrap().to_owned();
        (code, pages)
    };
    assert_eq!(verify().0, 0);
    // the block, not the log, which has it further ahead
    let region = dir.path().join("app.db-nvlite");
    let bytes = std::fs::read(&region).unwrap();
    let at = bytes.windows(16).rposition(|window| window == b"found in a block").unwrap() as u64;
    let file = std::fs::OpenOptions::new().write(true).open(&region).unwrap();
    file.write_all_at(b"F", at).unwrap();
    let (code, found) = verify();
    assert!(code == 1 && found.starts_with("page 2, in block ") && found.contains("no other copy"), "{code} {found}");
    let row = "SELECT page, place, remedy FROM nvlite_damage";
    let row = live.query_row(row, (), |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))).unwrap();
    assert_eq!(row, (2, "fast tier".to_owned()));
    file.write_all_at(b"f", at).unwrap();
    assert_eq!(verify().0, 0, "it is good again");
}

#[test]
fn verify_names_a_missing_region() {
    let (dir, path, db) = site();
    let live = OpenOptions::new().keep_region(true).open(&path).unwrap();
    live.execute_batch("CREATE TABLE t(x)").unwrap();
    drop(live);
    let (_, status) = json(&["status", "--db", &db, "--json"]);
    assert_eq!(status["open"], Value::from(false));
    let id = status["region"].as_str().unwrap().to_owned();
    let (code, verdict) = json(&["verify", "--db", &db, "--json"]);
    assert_eq!((code, &verdict["ok"]), (0, &true.into()), "{verdict}");
    let names_it = |what: &str| {
        for command in ["verify", "status"] {
            let (code, text) = nvlite(&[command, "--db", &db]);
            assert_eq!(code, 1, "{what}: {command}: {text}");
            assert!(id.len() == 32 && text.contains(&id) && text.contains("app.db-nvlite"), "{what}: {text}");
            assert!(!text.contains("recovers it"), "{what}: {text}");
        }
        let (code, status) = json(&["status", "--db", &db, "--json"]);
        assert!(code == 1 && status["problem"].as_str().is_some_and(|p| p.contains(&id)), "{what}: {status}");
    };
    // another database's in its place, none of any bytes, none at all
    let (_other_dir, other_path, _) = site();
    let other = OpenOptions::new().region("16MiB").keep_region(true).open(&other_path).unwrap();
    other.execute_batch("CREATE TABLE t(x)").unwrap();
    drop(other);
    let side = dir.path().join("app.db-nvlite");
    std::fs::copy(other_path.with_file_name("app.db-nvlite"), &side).unwrap();
    names_it("another region");
    std::fs::write(&side, "").unwrap();
    let (code, status) = json(&["status", "--db", &db, "--json"]);
    assert!(code == 1 && status["problem"].as_str().is_some_and(|p| p.contains(&id)), "{status}");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let side = entry.unwrap().path();
        if side != path {
            std::fs::remove_file(side).unwrap();
        }
    }
    names_it("no region");
    assert!(nvlite(&["status", "--db", &db]).1.contains("medium=ram"));
    let (code, text) = nvlite(&["status", "--db", &db, "--region-dir", "/dev/shm"]);
    assert!(code == 1 && text.contains("in memory"), "{text}");
}

#[test]
fn verify_of_what_cannot_be_looked_at_is_status_2() {
    let (dir, path, db) = site();
    // Another's exclusive lock: ten seconds of patience, then nothing is known.
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); BEGIN EXCLUSIVE").unwrap();
    let (code, text) = nvlite(&["verify", "--db", &db]);
    assert!(code == 2 && text.contains("locked"), "{code} {text}");
    drop(stock);
    std::fs::remove_file(&path).unwrap();
    // A mapping that is not to be seen from here, as in another container.
    let live = filled(&path);
    let id = json(&["status", "--db", &db, "--json"]).1["region"].as_str().unwrap().to_owned();
    let hidden = |hide: bool| {
        for place in ["/dev/shm".as_ref(), dir.path()] {
            for entry in std::fs::read_dir(place).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if name.contains(&id) && name.ends_with(".hidden") != hide {
                    let to = if hide { name + ".hidden" } else { name.replace(".hidden", "") };
                    std::fs::rename(entry.path(), place.join(to)).unwrap();
                }
            }
        }
    };
    hidden(true);
    let (code, text) = nvlite(&["verify", "--db", &db]);
    hidden(false);
    assert!(code == 2 && text.contains("shared mapping") && text.contains("app.db"), "{code} {text}");
    assert_eq!(nvlite(&["verify", "--db", &db]).0, 0);
    drop(live);
}

#[test]
fn the_side_files_are_found_where_the_vfs_puts_them() {
    use std::os::unix::ffi::OsStringExt;
    let (dir, side) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let name = std::ffi::OsString::from_vec(b"caf\xE9.db".to_vec());
    let path = dir.path().join(&name);
    let live = OpenOptions::new().region("16MiB").region_dir(side.path()).open(&path).unwrap();
    live.execute_batch("CREATE TABLE t(x)").unwrap();
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_nvlite"));
        let tool = tool.args(["status", "--json", "--db"]).arg(name).env("NVLITE_REGION_DIR", side.path());
        let status: Value = serde_json::from_slice(&tool.output().unwrap().stdout).unwrap();
        assert_eq!(status["open"], Value::from(true), "{status}");
        assert!(status["stat"]["commits"].as_u64() > Some(0), "{status}");
    }
}

#[test]
fn status_of_what_nobody_has_open_says_what_the_next_open_will_do() {
    for medium in [Medium::File, Medium::Ram] {
        let dir = match medium {
            Medium::Ram => TempDir::new_in("/dev/shm").unwrap(),
            _ => TempDir::new().unwrap(),
        };
        let (path, side) = (dir.path().join("app.db"), dir.path().join("app.db-nvlite"));
        let db = path.display().to_string();
        let live = OpenOptions::new().medium(medium).region("16MiB").keep_region(true).open(&path).unwrap();
        live.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").unwrap();
        let (_, status) = json(&["status", "--db", &db, "--json"]);
        assert!(status["left"].is_null(), "its figures tell more: {status}");
        drop(live);
        let before = (std::fs::read(&path).unwrap(), std::fs::read(&side).unwrap());
        let (code, status) = json(&["status", "--db", &db, "--json"]);
        let left = &status["left"];
        assert_eq!((code, &status["open"], &status["state"]), (0, &false.into(), &"marked".into()), "{status}");
        let name = if medium == Medium::Ram { "ram" } else { "file" };
        assert_eq!((&left["medium"], &left["region"]), (&name.into(), &status["region"]), "{left}");
        assert_eq!((&left["marked"], &left["complete"]), (&true.into(), &false.into()), "{left}");
        assert_eq!((&left["page_size"], &left["budget"]), (&4096.into(), &(16 << 20).into()), "{left}");
        let number = |key: &str| left[key].as_u64().unwrap_or_else(|| panic!("{key}: {left}"));
        assert_eq!(number("newest") - number("low_water"), number("commits_to_redo"), "{left}");
        assert_eq!(number("commits_to_redo"), 3, "{left}");
        assert!(number("journals_to_redo") >= 3 && number("entries_to_redo") >= 4, "{left}");
        assert!(number("incarnation") > 0, "{left}");
        let keys = "region marked medium page_size budget incarnation complete low_water newest commits_to_redo \
            journals_to_redo entries_to_redo durable_pages";
        let mut have: Vec<&str> = left.as_object().unwrap().keys().map(String::as_str).collect();
        let mut want: Vec<&str> = keys.split_whitespace().collect();
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(have, want, "keys are added, never changed");
        let (code, text) = nvlite(&["status", "--db", &db]);
        assert!(code == 0 && text.contains("3 commits") && text.contains(name), "{text}");
        let now = (std::fs::read(&path).unwrap(), std::fs::read(&side).unwrap());
        assert!(now == before, "{name}: looking changes nothing");
        // a region that the base does not bear the mark of
        let mut bytes = before.0.clone();
        bytes[18..20].copy_from_slice(&[1, 1]);
        bytes[72..92].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (_, status) = json(&["status", "--db", &db, "--json"]);
        assert_eq!((&status["state"], &status["left"]["marked"]), (&"stock".into(), &false.into()), "{status}");
        std::fs::write(&path, &before.0).unwrap();
        // a log with a gap: the newest commit attests the one before, which is destroyed
        let mut region = before.1.clone();
        let slots = (8192..region.len()).step_by(1024).take(64);
        let first = slots.filter(|&at| region[at + 8..at + 16] == (number("low_water") + 1).to_le_bytes());
        first.collect::<Vec<_>>().into_iter().for_each(|at| region[at..at + 1024].fill(0));
        std::fs::write(&side, &region).unwrap();
        let (code, status) = json(&["status", "--db", &db, "--json"]);
        let problem = status["problem"].as_str().unwrap_or_else(|| panic!("{status}"));
        assert!(code == 1 && problem.contains("is missing"), "{problem}");
        std::fs::write(&side, "no region at all").unwrap();
        let (code, text) = nvlite(&["status", "--db", &db]);
        assert!(code == 1 && text.contains("problem") && text.contains("app.db-nvlite"), "{text}");
        assert!(!text.contains("recovers it"), "{text}");
    }
}

#[test]
fn export_of_a_live_database_is_a_stock_copy() {
    let (dir, path, db) = site();
    let live = filled(&path);
    let copy = dir.path().join("copy.db");
    let to = copy.display().to_string();
    let (code, exported) = json(&["export", "--db", &db, "--to", &to, "--json"]);
    assert_eq!(code, 0, "{exported}");
    let view = Connection::open(&copy).unwrap();
    assert_eq!(view.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 500);
    assert_eq!(view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
    assert_eq!(exported["bytes"].as_u64().unwrap(), std::fs::metadata(&copy).unwrap().len());
    live.execute_batch("DELETE FROM t").unwrap();
    assert_eq!(nvlite(&["export", "--db", &db, "--to", &to]).0, 2, "it is there already");
    assert_eq!(nvlite(&["export", "--db", &db, "--to", &to, "--force"]).0, 0);
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".part")), "{names:?}");
}

#[test]
fn export_replaces_nothing_that_somebody_needs() {
    let (dir, path, db) = site();
    let live = filled(&path);
    let copy = dir.path().join("copy.db");
    let to = copy.display().to_string();
    // Not by reading it: closing a file drops the locks that this process has on it.
    let state =
        |path: &Path| std::fs::metadata(path).ok().map(|data| (data.ino(), data.len(), data.modified().unwrap()));
    let refused = |to: &Path, why: &str| {
        let before = state(to);
        let (code, text) = nvlite(&["export", "--db", &db, "--to", to.to_str().unwrap(), "--force"]);
        assert!(code == 2 && text.contains(why), "{code} {text}");
        assert_eq!(state(to), before, "{why}: it is as it was");
    };
    refused(&path, "the database itself");
    let link = dir.path().join("link.db");
    std::fs::hard_link(&path, &link).unwrap();
    refused(&link, "the database itself");
    std::fs::remove_file(&link).unwrap();
    let other = dir.path().join("other.db");
    let kept = OpenOptions::new().keep_region(true).open(&other).unwrap();
    kept.execute_batch("CREATE TABLE precious(x)").unwrap();
    refused(&other, "database of nvlite");
    drop(kept);
    refused(&other, "database of nvlite");
    // What SQLite would apply to the copy.
    let writer = Connection::open(&copy).unwrap();
    writer.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE w(x)").unwrap();
    refused(&copy, "copy.db-wal");
    drop(writer);
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(dir.path().join("copy.db-journal"), "anything").unwrap();
    refused(&copy, "copy.db-journal");
    std::fs::remove_file(dir.path().join("copy.db-journal")).unwrap();
    // A stock database in the middle of a transaction, and afterwards.
    let reader = Connection::open(&copy).unwrap();
    reader.execute_batch("CREATE TABLE r(x); BEGIN; SELECT * FROM r").unwrap();
    refused(&copy, "another program uses");
    reader.execute_batch("COMMIT").unwrap();
    refused(dir.path(), "not a file");
    assert_eq!(nvlite(&["export", "--db", &db, "--to", &to, "--force"]).0, 0);
    assert_eq!(Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM t", (), |row| row.get(0)), Ok(500));
    drop(live);
}

#[test]
fn export_checks_the_copy() {
    let (dir, path, db) = site();
    drop(filled(&path));
    let mut bytes = std::fs::read(&path).unwrap();
    // A cell pointer of the table's first page that points into its header.
    bytes[4096 + 8..4096 + 12].copy_from_slice(&[0, 1, 0, 1]);
    std::fs::write(&path, &bytes).unwrap();
    let copy = dir.path().join("copy.db");
    let (code, text) = nvlite(&["export", "--db", &db, "--to", copy.to_str().unwrap()]);
    assert!(code == 1 && text.contains("fails its check"), "{code} {text}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["app.db"]);
}

#[test]
fn usage_and_environment_are_status_2() {
    assert_eq!(nvlite(&[]).0, 2);
    assert_eq!(nvlite(&["status"]).0, 2);
    assert_eq!(nvlite(&["status", "--db", "/nowhere/at/all.db"]).0, 2);
    assert_eq!(nvlite(&["export", "--db", "/nowhere/at/all.db", "--to", "/nowhere/copy.db"]).0, 2);
    // designed for and not built: a script must not take for done what was not
    for command in ["snapshot", "branch", "ship", "replica", "drain", "promote", "ha", "archive", "restore"] {
        let (code, text) = nvlite(&[command, "--db", "/nowhere/at/all.db"]);
        assert!(code == 2 && text.contains("unrecognized subcommand"), "{command}: {code} {text}");
    }
    let (code, help) = nvlite(&["--help"]);
    assert!(code == 0 && help.contains("Examples") && help.contains("nvlite status"), "{help}");
    for command in ["status", "verify", "export"] {
        let (code, help) = nvlite(&[command, "--help"]);
        assert!(code == 0 && help.contains("Example"), "{help}");
    }
}
