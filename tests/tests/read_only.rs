//! Who only reads a database leaves no trace at a stock file, also if it becomes one between his open and his first look.

use nvlite_tests::sql::{System, integrity, log, stock_file};
use rusqlite::{Connection, ErrorCode};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Not a test of its own: another process, which has the database open until it is told to close it.
#[test]
fn in_a_child() {
    let Ok(path) = std::env::var("NVLITE_TEST_PATH") else { return };
    let system = std::env::var("NVLITE_TEST_SYSTEM").ok().and_then(|name| System::named(&name)).expect("a system");
    let db = system.open_with(Path::new(&path), 1000, "&region=1MiB").expect("opens");
    db.execute_batch("INSERT INTO t(b) VALUES(2)").expect("inserts");
    println!("\nopen");
    std::io::stdin().read_line(&mut String::new()).expect("a word");
    db.close().expect("closes");
}

/// A process that has the database at `path` open, and what it says.
struct Other(Child, Lines<BufReader<ChildStdout>>);

impl Other {
    fn open(system: System, path: &Path) -> Other {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "in_a_child", "--nocapture"])
            .env("NVLITE_TEST_PATH", path)
            .env("NVLITE_TEST_SYSTEM", system.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "open"), "it did not open the database");
        Other(child, lines)
    }

    fn close(mut self) {
        self.0.stdin.take().expect("a pipe").write_all(b"close\n").expect("told");
        let said: Vec<_> = self.1.map_while(Result::ok).collect();
        assert!(self.0.wait().expect("its end").success(), "{said:#?}");
    }
}

#[test]
fn p14_a_stock_file_that_was_marked_at_the_open_is_left_alone_by_who_only_reads() {
    // Failure: the first SELECT marks it and makes a region, or fails over that where the reader may not write.
    log::listen();
    for system in System::NVLITE {
        let scratch = system.scratch();
        let path = scratch.path("app.db");
        stock_file(&path).expect("stock");
        let open = || system.open_with(&path, 1000, "&mode=ro").expect("opens");
        let count = |db: &Connection| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        let other = Other::open(system, &path);
        let (early, late) = (open(), open());
        assert_eq!(count(&early), Ok(2), "{system:?}: while others have it open");
        drop(early);
        other.close();
        let file = std::fs::read(&path).expect("the file");
        assert_eq!((file[18], scratch.names()), (1, vec!["app.db".into()]), "{system:?}: it is closed");
        for _ in 0..2 {
            let code = count(&late).expect_err("it is a stock file").sqlite_error_code();
            assert_eq!(code, Some(ErrorCode::CannotOpen), "{system:?}");
        }
        log::told(&path, &["open it again"]).expect("told why");
        assert!(std::fs::read(&path).expect("the file") == file, "{system:?}: the file was changed");
        assert_eq!(scratch.names(), ["app.db"], "{system:?}");
        let again = open();
        assert_eq!((count(&again), integrity(&again).as_deref()), (Ok(2), Ok("ok")), "{system:?}: opened again");
        // it can be read on if others open it again
        let other = Other::open(system, &path);
        assert_eq!(count(&late), Ok(3), "{system:?}");
        drop(late);
        other.close();
        assert_eq!(scratch.names(), ["app.db"], "{system:?}");
        assert_eq!(count(&open()), Ok(3), "{system:?}");
    }
}
