//! SQL functions and table-valued functions, on every connection of a library in which the VFS is registered.
#![allow(unsafe_code)]

mod functions;
mod table;
mod tables;

use crate::api::{Api, to_c};
use crate::error::{Failure, Outcome};
use crate::file::{Conn, MOST_MMAP, OWN_JOURNAL_MODE, VISIT, Visit, is_ours};
use crate::instance::{self, ErrorText, Instance};
use crate::sys::*;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What SQLite calls for every new connection. It answers SQLITE_OK or fails the open: never
/// SQLITE_OK_LOAD_PERMANENTLY, which here would make every later open fail.
///
/// # Safety
/// As SQLite calls it.
pub unsafe extern "C" fn on_new_connection(
    db: *mut sqlite3,
    error: ErrorText,
    routines: *const sqlite3_api_routines,
) -> c_int {
    let run = || {
        // SAFETY: the table of the library that calls; null where it was built without extensions.
        let api = unsafe { Api::loaded(routines) }.ok();
        match instance::find(api.as_ref()) {
            // SAFETY: the new connection.
            Some(instance) => unsafe { install(instance, db, error) },
            None => SQLITE_OK,
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(SQLITE_ERROR)
}

/// Registers everything on one connection.
///
/// # Safety
/// `db` is a connection of the instance's library; `error` is null or takes a message.
unsafe fn install(instance: &'static Instance, db: *mut sqlite3, error: ErrorText) -> c_int {
    // SAFETY: as the caller promises.
    let installed = unsafe { functions::install(instance, db).and_then(|()| tables::install(instance, db)) };
    match installed {
        Ok(()) => {
            // SAFETY: as the caller promises.
            unsafe { settle(&instance.api, db) };
            SQLITE_OK
        }
        Err(code) => {
            // SAFETY: as the caller promises.
            if let Some(error) = unsafe { error.as_mut() } {
                *error = instance.api.alloc_text("nvlite: cannot register its SQL functions");
            }
            code
        }
    }
}

/// What a new connection is told if its main database is ours, and what costs a program nothing that it could miss.
///
/// It reads pages where they lie instead of copying each (`PRAGMA mmap_size`), if the program has no wish of its own:
/// for a stock file that has its dangers, for ours it has none; a program that does not want it says `PRAGMA
/// mmap_size=0`.
///
/// It keeps its rollback journal through us, where a journal only refers to the pages of the snapshot, and keeps it
/// open (`journal_mode=TRUNCATE`). Otherwise SQLite holds a copy of every page that it changes, and commits at
/// `synchronous=NORMAL` wait as at FULL, from which we cannot tell them then (P5). Either serves.
///
/// # Safety
/// `db` is a connection of this library that is not in use.
unsafe fn settle(api: &Api, db: *mut sqlite3) {
    let run = |sql: &str| {
        // SAFETY: as the caller promises. What SQLite refuses (one without mmap, a database that cannot be opened)
        // stays as it is; the program's own first statement says why.
        unsafe { (api.exec)(db, to_c(sql).as_ptr(), None, std::ptr::null_mut(), std::ptr::null_mut()) };
    };
    // SAFETY: as the caller promises.
    let asked = unsafe { visit(api, db, "main", |conn| Ok((conn.has_no_mmap_limit(), conn.may_journal()))) };
    let Ok((places, journals)) = asked else { return };
    if places {
        run(&format!("PRAGMA main.mmap_size={MOST_MMAP}"));
    }
    if journals {
        // SAFETY: as the caller promises. A file that is gone has nothing to let pass.
        let let_pass = |pass| unsafe {
            let told = visit(api, db, "main", |conn| {
                if pass {
                    // A statement that cannot attach would be told in SQLite's error log, and the program never wrote
                    // it.
                    conn.store()?;
                }
                conn.let_journal_mode_pass(pass);
                Ok(())
            });
            told.is_ok()
        };
        if let_pass(true) {
            run(&format!("PRAGMA main.journal_mode={OWN_JOURNAL_MODE}"));
            let_pass(false);
        }
        // SQLite fails an open after which an error is set; that of a statement of ours would do
        run("");
    }
}

/// A value for SQL.
pub(crate) enum Value {
    /// INTEGER.
    Int(i64),
    /// TEXT.
    Text(String),
}

impl Value {
    /// Makes it the result of a function or a column.
    ///
    /// # Safety
    /// `context` is the one of the call in progress.
    unsafe fn give(&self, api: &Api, context: *mut sqlite3_context) {
        // SAFETY: as the caller promises; SQLite copies the text.
        unsafe {
            match self {
                Value::Int(number) => (api.result_int64)(context, *number),
                Value::Text(text) => {
                    let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
                    (api.result_text)(context, text.as_ptr().cast(), length, SQLITE_TRANSIENT());
                }
            }
        }
    }
}

/// The text of an argument; `None` for NULL.
///
/// # Safety
/// `value` is an argument of the call in progress.
unsafe fn text_of(api: &Api, value: *mut sqlite3_value) -> Option<String> {
    // SAFETY: as the caller promises; SQLite's answer is null or terminated.
    unsafe {
        let text = (api.value_text)(value);
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text.cast()).to_string_lossy().into_owned())
    }
}

/// Runs something with our file of one database of a connection, as one of SQLite's calls to that file.
///
/// # Safety
/// `db` is a connection that is opened, or is evaluating SQL.
unsafe fn visit<T>(api: &Api, db: *mut sqlite3, schema: &str, run: impl FnOnce(&mut Conn) -> Outcome<T>) -> Outcome<T> {
    let mut file: *mut sqlite3_file = std::ptr::null_mut();
    let name = to_c(schema);
    let (mut run, mut answer) = (Some(run), None);
    let mut once = |conn: &mut Conn| answer = run.take().map(|run| run(conn));
    let mut argument: Visit<'_> = &mut once;
    // SAFETY: the first operation answers a file of this connection, or leaves null; the second is known to ours alone.
    let code = unsafe {
        let code = (api.file_control)(db, name.as_ptr(), SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
        if code != SQLITE_OK {
            return Err(Failure::Told(SQLITE_ERROR, format!("nvlite: no database '{schema}'")));
        }
        if !is_ours(file) {
            return Err(Failure::Told(SQLITE_ERROR, format!("nvlite: '{schema}' is not open through nvlite")));
        }
        (api.file_control)(db, name.as_ptr(), VISIT, (&raw mut argument).cast())
    };
    answer.unwrap_or(Err(Failure::Code(code)))
}

#[cfg(test)]
mod tests {
    use super::{OWN_JOURNAL_MODE, visit};
    use crate::api::Api;
    use crate::{Medium, OpenOptions};
    use nvlite_engine::Durability;
    use rusqlite::Connection;

    fn int(db: &Connection, sql: &str) -> i64 {
        db.query_row(sql, (), |row| row.get(0)).expect(sql)
    }

    #[test]
    fn no_journal_mode_passes_but_our_own() {
        // Failure: where connections share a cache, another thread's OFF comes while ours passes, and nothing rolls back.
        let dir = tempfile::tempdir().expect("a directory");
        let db =
            OpenOptions::new().medium(Medium::File).region("16MiB").open(dir.path().join("app.db")).expect("opens");
        db.execute_batch("CREATE TABLE t(x)").expect("written");
        // SAFETY: a connection of the linked library, not in use.
        let let_pass = |pass| unsafe {
            visit(&Api::linked(), db.handle(), "main", |conn| {
                conn.let_journal_mode_pass(pass);
                Ok(())
            })
            .expect("visited");
        };
        let mode = |sql: &str| db.query_row(sql, (), |row| row.get::<_, String>(0)).expect(sql);
        let_pass(true);
        for asked in ["OFF", "WAL", "MEMORY", "DELETE"] {
            assert_eq!(mode(&format!("PRAGMA journal_mode={asked}")), "memory", "{asked}");
        }
        assert_eq!(mode("PRAGMA journal_mode"), "memory");
        assert_eq!(mode(&format!("PRAGMA journal_mode={OWN_JOURNAL_MODE}")), OWN_JOURNAL_MODE.to_ascii_lowercase());
        let_pass(false);
        db.execute_batch("BEGIN; INSERT INTO t VALUES (1); ROLLBACK").expect("rolled back");
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 0);
    }

    #[test]
    fn p19_sqlite_drops_a_cache_that_is_of_another_history() {
        // Failure: two histories share a change counter, and SQLite trusts what it cached in the other one.
        let dir = tempfile::tempdir().expect("a directory");
        let open = || OpenOptions::new().medium(Medium::File).region("16MiB").open(dir.path().join("app.db"));
        let (one, two) = (open().expect("opens"), open().expect("opens"));
        // what is read in place is not cached
        one.execute_batch("PRAGMA mmap_size=0; CREATE TABLE t(x); INSERT INTO t VALUES (1)").expect("written");
        assert_eq!(int(&one, "SELECT x FROM t"), 1);
        let header = |db: &Connection| {
            // SAFETY: a connection of the linked library, not in use.
            let header = unsafe {
                visit(&Api::linked(), db.handle(), "main", |conn| {
                    let mut header = [0; 100];
                    conn.store()?.session()?.read(0, &mut header)?;
                    Ok(header)
                })
            };
            header.expect("visited")
        };
        let cached = header(&one);
        two.execute_batch("UPDATE t SET x=2").expect("written");
        // the counter as it was, as in a history that another one took the place of
        let mut same = header(&two);
        assert_ne!(same[24..40], cached[24..40]);
        same[24..28].copy_from_slice(&cached[24..28]);
        same[92..96].copy_from_slice(&cached[24..28]);
        // SAFETY: as above.
        let written = unsafe {
            visit(&Api::linked(), two.handle(), "main", |conn| {
                let mut session = conn.store()?.session()?;
                session.begin_write()?;
                session.write(0, &same)?;
                session.prepare()?;
                Ok(session.commit(Durability::Full)?)
            })
        };
        written.expect("written");
        assert_eq!(header(&two)[24..40], cached[24..40]);
        assert_eq!(int(&one, "SELECT x FROM t"), 1, "the cache is trusted: the test would prove nothing");
        // SAFETY: as above.
        unsafe { visit(&Api::linked(), one.handle(), "main", |conn| conn.assume_seen_another()) }.expect("visited");
        assert_eq!(int(&one, "SELECT x FROM t"), 2, "the cache was dropped");
    }
}
