//! A directory for the database of a test, and connections to it.

use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::{Connection, OpenFlags, ffi};
use std::cell::RefCell;
use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database that does not exist yet.
pub struct Site {
    pub dir: TempDir,
    pub medium: Medium,
    shm: Option<TempDir>,
}

impl Site {
    pub fn new(medium: Medium) -> Site {
        log_to_stderr();
        let shm = (medium == Medium::Ram).then(|| TempDir::new_in("/dev/shm").unwrap());
        Site { dir: TempDir::new().unwrap(), medium, shm }
    }

    pub fn path(&self) -> PathBuf {
        self.file("app.db")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn options(&self) -> OpenOptions {
        let options = OpenOptions::new().medium(self.medium).region("16MiB");
        match &self.shm {
            Some(shm) => options.region_dir(shm.path()),
            None => options,
        }
    }

    pub fn uri(&self, name: &str) -> String {
        self.options().uri(&self.file(name))
    }

    /// A connection through nvlite.
    pub fn open(&self) -> Connection {
        self.options().open(self.path()).unwrap()
    }

    pub fn open_file(&self, name: &str) -> Connection {
        self.options().open(self.file(name)).unwrap()
    }

    /// A connection of the default VFS.
    pub fn stock(&self) -> Connection {
        stock(&self.path())
    }

    /// What stands in the directories beside the database itself.
    pub fn side_files(&self) -> Vec<String> {
        let mut names: Vec<String> = [Some(self.dir.path()), self.shm.as_ref().map(TempDir::path)]
            .into_iter()
            .flatten()
            .flat_map(|dir| std::fs::read_dir(dir).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "app.db")
            .collect();
        names.sort();
        names
    }
}

thread_local! {
    /// What SQLite's error log was told by this thread.
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What SQLite's error log was told by this thread since the last call.
pub fn logged() -> Vec<String> {
    LOGGED.take()
}

/// SQLite's error log goes where the test harness shows it if the test fails.
fn log_to_stderr() {
    unsafe extern "C" fn print(_: *mut c_void, code: c_int, text: *const std::ffi::c_char) {
        // SAFETY: SQLite's message is terminated.
        let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned();
        eprintln!("sqlite: {code}: {text}");
        let _ = LOGGED.try_with(|logged| logged.borrow_mut().push(text));
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    type Print = unsafe extern "C" fn(*mut c_void, c_int, *const std::ffi::c_char);
    // SAFETY: before SQLite is initialised, as the option demands; otherwise it answers SQLITE_MISUSE and nothing
    // happens.
    ONCE.call_once(|| unsafe {
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOG, print as Print, std::ptr::null_mut::<c_void>());
    });
}

/// Runs a test on both media that every machine has.
pub fn on_both(test: impl Fn(&Site)) {
    for medium in [Medium::File, Medium::Ram] {
        eprintln!("medium {medium:?}");
        let site = Site::new(medium);
        test(&site);
    }
}

pub fn stock(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags_and_vfs(path, flags, c"unix").unwrap()
}

pub fn close(db: Connection) {
    db.close().map_err(|(_, error)| error).unwrap();
}

pub fn text(db: &Connection, sql: &str) -> String {
    value(db, sql)
}

pub fn int(db: &Connection, sql: &str) -> i64 {
    value(db, sql)
}

fn value<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> T {
    db.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

pub fn check(db: &Connection) {
    assert_eq!(text(db, "PRAGMA integrity_check"), "ok");
}

/// A table of `rows` rows of about `bytes` bytes, different in each.
pub fn fill(db: &Connection, table: &str, rows: usize, bytes: usize) {
    db.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY, body BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows})
         INSERT INTO {table}(body) SELECT randomblob({bytes}) FROM n;"
    ))
    .unwrap();
}

/// The extended code of a failure.
pub fn code(error: &rusqlite::Error) -> c_int {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => error.extended_code,
        other => panic!("not an error of SQLite: {other}"),
    }
}

pub fn fails(result: rusqlite::Result<()>) -> c_int {
    code(&result.expect_err("must fail"))
}

/// `sqlite3_file_control`.
pub fn control<T>(db: &Connection, op: c_int, argument: &mut T) -> c_int {
    // SAFETY: every test passes the documented type; the connection is open.
    unsafe { ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), op, (&raw mut *argument).cast::<c_void>()) }
}

/// A string that SQLite allocated.
pub fn take_text(text: *mut std::ffi::c_char) -> String {
    assert!(!text.is_null());
    // SAFETY: terminated, from sqlite3_malloc.
    unsafe {
        let copy = CString::from(std::ffi::CStr::from_ptr(text));
        ffi::sqlite3_free(text.cast());
        copy.into_string().unwrap()
    }
}
