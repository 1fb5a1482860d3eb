//! The extension as its users load it: by the `sqlite3` program and by Python, against Debian's SQLite and ours.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use rusqlite::Connection;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{PYTHON, library, needs};
use tempfile::TempDir;

const SQLITE3: &str = "/usr/bin/sqlite3";

/// Runs a program with `input`; answers what it printed on both streams, and panics if it is killed by a signal.
fn run(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some(), "killed: {}\n{text}", output.status);
    text
}

fn sqlite3(script: &str) -> String {
    run(Command::new(SQLITE3).arg("-batch"), script)
}

fn python(script: &str) -> String {
    run(Command::new(PYTHON).arg("-"), script)
}

fn load() -> String {
    // sqlite3 takes the name without its suffix, as in the documentation.
    library().with_extension("").display().to_string()
}

#[test]
fn the_sqlite3_program_loads_it() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let db = dir.path().join("x.db");
    let script = format!(
        ".load {}\n.open file:{}?vfs=nvlite\nCREATE TABLE t(x);\nINSERT INTO t VALUES (1),(2);\nSELECT sum(x) FROM t;\n\
         SELECT nvlite_version();\nPRAGMA journal_mode;\n.vfsname\nSELECT count(*)>3 FROM nvlite_stat;\nPRAGMA integrity_check;\n",
        load(),
        db.display()
    );
    assert_eq!(sqlite3(&script), format!("3\n{}\nmemory\nnvlite/unix\n1\nok\n", env!("CARGO_PKG_VERSION")));
    stock_is_complete(dir.path(), &db, 3);
}

#[test]
fn under_another_name_it_wants_its_entry_point_named() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let other = dir.path().join("other.so");
    std::fs::copy(library(), &other).unwrap();
    let script = |entry: &str| format!(".load {} {entry}\nSELECT nvlite_version();\n", other.display());
    assert!(sqlite3(&script("")).contains("sqlite3_other_init"));
    assert_eq!(sqlite3(&script("sqlite3_nvlite_init")), format!("{}\n", env!("CARGO_PKG_VERSION")));
}

/// What the error log of Debian's program is told in `dir` of a database whose region was taken away: the first error of
/// ours, of how many lines, without the directory and the number of the region.
fn told_of_a_missing_region(dir: &Path) -> (usize, String) {
    let db = dir.join("app.db");
    let script = |then: &str| {
        let open = format!(".open file:{}?vfs=nvlite&keep_region=1", db.display());
        sqlite3(&format!(".log stdout\n.load {}\n{open}\n{then}\n", load()))
    };
    script("CREATE TABLE t(x);");
    std::fs::remove_file(dir.join("app.db-nvlite")).unwrap();
    let printed = script("SELECT * FROM t;");
    // the log of the program says "(code) " first
    let ours = printed.lines().filter_map(|line| line.strip_prefix('(')?.split_once(") ")).map(|(_, text)| text);
    let mut lines = ours.skip_while(|line| !line.starts_with("nvlite: "));
    let mut text = lines.next().unwrap_or_else(|| panic!("no error of ours:\n{printed}")).to_owned();
    let more: Vec<&str> = lines.map_while(|line| line.strip_prefix("nvlite+ ")).collect();
    more.iter().for_each(|more| text.push_str(more));
    let of_region = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let id = text.split(|c: char| !c.is_alphanumeric()).find(of_region).unwrap_or("none").to_owned();
    (1 + more.len(), text.replace(&dir.display().to_string(), "DIR").replace(&id, "ID"))
}

#[test]
fn an_error_deep_in_directories_arrives_whole() {
    // Failure: SQLite's error log cuts lines off, and of the error about such a file it has the directories only.
    if !needs::program(SQLITE3) {
        return;
    }
    let top = TempDir::new().unwrap();
    let deep = top.path().join([&["d".repeat(98)][..]; 4].concat().join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    assert!((400..450).contains(&deep.display().to_string().len()));
    let (shallow, (lines, text)) = (told_of_a_missing_region(top.path()), told_of_a_missing_region(&deep));
    assert!(shallow.1.contains("DIR/app.db") && shallow.1.contains("region"), "{}", shallow.1);
    assert!(lines > shallow.0 + 1, "{lines} lines");
    assert_eq!(text, shallow.1);
}

fn stock_is_complete(dir: &Path, db: &Path, sum: i64) {
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "no side files");
    let view = Connection::open(db).unwrap();
    assert_eq!(view.query_row("SELECT sum(x) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), sum);
    assert_eq!(view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
}

#[test]
fn python_loads_it() {
    if !needs::program(PYTHON) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let db = dir.path().join("x.db");
    let script = format!(
        "import sqlite3\nd=sqlite3.connect(':memory:')\nd.enable_load_extension(True)\n\
         for i in range(3): d.load_extension({:?})\nd.close()\n\
         d=sqlite3.connect('file:{}?vfs=nvlite',uri=True)\nd.execute('CREATE TABLE t(x)')\n\
         for i in range(10):\n  d.execute('INSERT INTO t VALUES (?)',(i,))\n  d.commit()\n\
         print(d.execute('SELECT sum(x) FROM t').fetchone(), d.execute('SELECT nvlite_version()').fetchone())\nd.close()\n",
        load(),
        db.display()
    );
    assert_eq!(python(&script), format!("(45,) ('{}',)\n", env!("CARGO_PKG_VERSION")));
    stock_is_complete(dir.path(), &db, 45);
}

#[test]
fn loading_again_after_shutdown_works() {
    if !needs::program(PYTHON) {
        return;
    }
    // sqlite3_shutdown forgets automatic extensions and the order of the VFSs.
    let dir = TempDir::new().unwrap();
    let script = format!(
        "import ctypes,sqlite3\nlib=ctypes.CDLL('libsqlite3.so.0')\n\
         for i in range(3):\n  d=sqlite3.connect(':memory:')\n  d.enable_load_extension(True)\n  d.load_extension({:?})\n  d.close()\n  \
         d=sqlite3.connect('file:{}/x.db?vfs=nvlite',uri=True)\n  d.execute('CREATE TABLE IF NOT EXISTS t(x)')\n  \
         d.execute('INSERT INTO t VALUES (1)')\n  d.commit()\n  print(d.execute('SELECT count(*), nvlite_version() FROM t').fetchone()[0])\n  \
         d.close()\n  assert lib.sqlite3_shutdown()==0\n  assert lib.sqlite3_initialize()==0\n",
        load(),
        dir.path().display()
    );
    assert_eq!(python(&script), "1\n2\n3\n");
}

#[test]
fn it_can_be_the_default_for_names_that_match() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let script = format!(
        ".load {}\n.open {dir}/app.db\n.vfsname\nCREATE TABLE t(x);\nINSERT INTO t VALUES (5);\n.open {dir}/other.sqlite\n.vfsname\nCREATE TABLE t(x);\n\
         .open 'file:{dir}/third?vfs=nvlite'\n.vfsname\n",
        load(),
        dir = dir.path().display()
    );
    let mut command = Command::new(SQLITE3);
    let output = run(command.arg("-batch").env("NVLITE_DEFAULT", "1").env("NVLITE_MATCH", "*.db"), &script);
    let names: Vec<&str> = output.lines().collect();
    assert_eq!(names, ["nvlite/unix", "unix", "nvlite/unix"]);
    let view = Connection::open(dir.path().join("app.db")).unwrap();
    assert_eq!(view.query_row("SELECT x FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 5);
}

#[test]
fn without_a_pattern_it_is_the_default_for_every_name() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let script = format!(
        ".load {}\n.open {dir}/app.db\n.vfsname\n.open {dir}/other.sqlite\n.vfsname\nCREATE TABLE t(x);\n\
         INSERT INTO t VALUES (5);\nATTACH '{dir}/third' AS a;\nCREATE TABLE a.t(x);\nSELECT count(*)>3 FROM nvlite_stat('a');\n",
        load(),
        dir = dir.path().display()
    );
    let output =
        run(Command::new(SQLITE3).arg("-batch").env("NVLITE_DEFAULT", "1").env_remove("NVLITE_MATCH"), &script);
    assert_eq!(output, "nvlite/unix\nnvlite/unix\n1\n");
    let view = Connection::open(dir.path().join("other.sqlite")).unwrap();
    assert_eq!(view.query_row("SELECT x FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 5);
}

#[test]
fn the_environment_sets_parameters_and_the_uri_wins() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let shell = |uri: &str, medium: &str| {
        let script = format!(".load {}\n.open file:{}/{uri}\nCREATE TABLE t(x);\n", load(), dir.path().display());
        run(Command::new(SQLITE3).arg("-batch").env("NVLITE_MEDIUM", medium), &script)
    };
    assert!(shell("a.db?vfs=nvlite", "tape").contains("unable to open"), "a bad value in the environment");
    assert_eq!(shell("b.db?vfs=nvlite&medium=file", "tape"), "");
}

/// What `sqlite3` prints with these variables, of a database `name` in `dir`.
fn with_environment(dir: &Path, name: &str, environment: &[(&str, &str)], script: &str) -> String {
    let uri = format!("{}/{name}{}", dir.display(), if name.contains('?') { "" } else { "?vfs=nvlite" });
    let script = format!(".load {}\n.open file:{uri}\n{script}", load());
    run(Command::new(SQLITE3).arg("-batch").envs(environment.iter().copied()), &script)
}

#[test]
fn the_environment_sets_the_budget() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let blocks = |name: &str, region: &str| {
        let script = "CREATE TABLE t(x);\nSELECT value FROM nvlite_stat WHERE name='blocks_max';\n";
        with_environment(dir.path(), name, &[("NVLITE_REGION", region)], script).trim().parse::<u64>().unwrap()
    };
    let (small, large) = (blocks("a.db", "8MiB"), blocks("b.db", "32MiB"));
    assert!((1024..=2048).contains(&small) && (4096..=8192).contains(&large), "{small} {large} blocks of 4 KiB");
    assert_eq!(blocks("c.db?vfs=nvlite&region=32MiB", "8MiB"), large, "the URI wins");
    assert!(
        with_environment(dir.path(), "d.db", &[("NVLITE_REGION", "much")], "CREATE TABLE t(x);\n").contains("unable")
    );
}

#[test]
fn the_environment_sets_the_place_of_the_side_files_and_keeps_them() {
    if !needs::program(SQLITE3) {
        return;
    }
    let (dir, side) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let names = |dir: &TempDir| {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let place = ("NVLITE_REGION_DIR", side.path().to_str().unwrap());
    let kept = [place, ("NVLITE_KEEP_REGION", "1")];
    assert_eq!(with_environment(dir.path(), "x.db", &kept, "CREATE TABLE t(x);\nINSERT INTO t VALUES (3);\n"), "");
    assert_eq!(names(&dir), ["x.db"]);
    assert!(names(&side).contains(&"x.db-nvlite".to_owned()), "{:?}", names(&side));
    let refused = Connection::open(dir.path().join("x.db")).unwrap().execute_batch("SELECT * FROM t").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::NotADatabase));
    assert_eq!(with_environment(dir.path(), "x.db", &[place], "INSERT INTO t VALUES (4);\n"), "");
    assert_eq!(names(&side), Vec::<String>::new());
    stock_is_complete(dir.path(), &dir.path().join("x.db"), 7);
}

#[test]
fn the_environment_sets_the_reply_about_the_journal() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let asked = |reply: &[(&str, &str)]| with_environment(dir.path(), "x.db", reply, "PRAGMA journal_mode=DELETE;\n");
    assert_eq!(asked(&[("NVLITE_JOURNAL_MODE_REPLY", "wal")]), "wal\n");
    assert_eq!(asked(&[("NVLITE_JOURNAL_MODE_REPLY", "memory")]), "memory\n");
    assert_eq!(asked(&[]), "memory\n");
}

#[test]
fn what_happens_without_an_error_is_told_in_the_error_log() {
    if !needs::program(SQLITE3) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let kept = [("NVLITE_KEEP_REGION", "1")];
    assert_eq!(with_environment(dir.path(), "x.db", &kept, "CREATE TABLE t(x);\n"), "");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE u(x)").unwrap();
    let script = format!(".log stdout\n.load {}\n.open file:{}?vfs=nvlite\nSELECT * FROM u;\n", load(), path.display());
    let told = sqlite3(&script);
    let aside = dir.path().join("x.db-nvlite.stale-");
    assert!(told.contains("nvlite: set aside") && told.contains(aside.to_str().unwrap()), "{told}");
}

#[test]
fn a_second_copy_under_another_path_is_served_by_the_first() {
    if !needs::program(PYTHON) {
        return;
    }
    // After sqlite3_shutdown, too: the first copy's VFS is still there then, but its automatic extension is gone.
    let dir = TempDir::new().unwrap();
    let copy = dir.path().join("copy/libnvlite.so");
    std::fs::create_dir(copy.parent().unwrap()).unwrap();
    std::fs::copy(library(), &copy).unwrap();
    let script = format!(
        "import ctypes,sqlite3\nlib=ctypes.CDLL('libsqlite3.so.0')\n\
         def load(path):\n  d=sqlite3.connect(':memory:'); d.enable_load_extension(True); d.load_extension(path)\n  \
         print(d.execute('SELECT count(nvlite_version())').fetchone()[0],end=' '); d.close()\n\
         def use():\n  d=sqlite3.connect('file:{dir}/x.db?vfs=nvlite',uri=True)\n  d.execute('CREATE TABLE IF NOT EXISTS t(x)')\n  \
         d.execute('INSERT INTO t VALUES (1)')\n  d.commit()\n  d.execute('SELECT nvlite_version()')\n  \
         mmap=d.execute('PRAGMA mmap_size').fetchone()[0]>0\n  stat=d.execute('SELECT count(*)>3 FROM nvlite_stat').fetchone()[0]\n  \
         print(d.execute('SELECT count(*) FROM t').fetchone()[0],mmap,stat); d.close()\n\
         def again():\n  assert lib.sqlite3_shutdown()==0\n  assert lib.sqlite3_initialize()==0\n\
         load({first:?}); use(); load({copy:?}); use()\nagain(); load({copy:?}); use(); load({first:?}); use()\n\
         again(); load({first:?}); load({copy:?}); use()\n",
        dir = dir.path().display(),
        first = library(),
    );
    assert_eq!(python(&script), "1 1 True 1\n1 2 True 1\n1 3 True 1\n1 4 True 1\n1 1 5 True 1\n");
}

#[test]
fn another_process_is_an_external_reader() {
    if !needs::program(PYTHON) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let db = nvlite_vfs::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    let external = || {
        let (mut reader, op) = (-1i32, libsqlite3_sys::SQLITE_FCNTL_EXTERNAL_READER);
        // SAFETY: an open connection, and an int as the operation documents it.
        let code = unsafe {
            libsqlite3_sys::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, (&raw mut reader).cast())
        };
        assert_eq!(code, libsqlite3_sys::SQLITE_OK);
        reader
    };
    assert_eq!(external(), 0);
    let script = format!(
        "import sqlite3,sys\nl=sqlite3.connect(':memory:'); l.enable_load_extension(True); l.load_extension({:?})\n\
         d=sqlite3.connect('file:{}?vfs=nvlite',uri=True)\nprint(d.execute('SELECT count(*) FROM t').fetchone()[0],flush=True)\n\
         sys.stdin.readline(); d.close()\n",
        load(),
        path.display()
    );
    let mut second =
        Command::new(PYTHON).arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(second.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), external()), ("0\n", 1));
    drop(second.stdin.take());
    assert!(second.wait().unwrap().success());
    assert_eq!(external(), 0);
}

#[test]
fn loaded_beside_a_linked_copy_it_leaves_the_linked_one_alone() {
    let dir = TempDir::new().unwrap();
    let db = nvlite_vfs::open(dir.path().join("x.db")).unwrap();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    let loader = Connection::open_in_memory().unwrap();
    // SAFETY: the library of this build.
    unsafe {
        loader.load_extension_enable().unwrap();
        loader.load_extension(library(), None::<&str>).unwrap();
    }
    db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert!(db.query_row("SELECT count(*) FROM nvlite_stat", (), |row| row.get::<_, i64>(0)).unwrap() > 3);
}

#[test]
fn the_library_contains_no_copy_of_sqlite_and_exports_its_entry_only() {
    if !needs::program("nm") {
        return;
    }
    let symbols = run(Command::new("nm").arg("-D").arg("--defined-only").arg(library()), "");
    let exported: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(exported, ["sqlite3_nvlite_init"]);
    let undefined = run(Command::new("nm").arg("-D").arg("--undefined-only").arg(library()), "");
    assert!(!undefined.contains(" sqlite3_"), "it takes SQLite from the table that the host hands it");
    let bytes = std::fs::read(library()).unwrap();
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!holds(b"malformed database schema"), "a message of SQLite's parser");
}
