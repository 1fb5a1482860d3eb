//! A query that stays open between two operations, which rusqlite's lifetimes do not allow.

use rusqlite::{Connection, ffi};
use std::ffi::{CStr, CString};

/// A statement that has been stepped at least once and has a row.
pub struct Cursor {
    statement: *mut ffi::sqlite3_stmt,
}

impl Cursor {
    /// Prepares and steps once. Answers the cursor, unless there was no row, and the first row.
    ///
    /// # Errors
    /// SQLite's extended code.
    pub fn open(db: &Connection, sql: &str) -> Result<(Option<Cursor>, Option<String>), i32> {
        let sql = CString::new(sql).map_err(|_| ffi::SQLITE_MISUSE)?;
        let mut statement = std::ptr::null_mut();
        // SAFETY: the handle is open as long as `db` is borrowed; `sql` ends with a zero.
        let code = unsafe {
            let code = ffi::sqlite3_prepare_v2(db.handle(), sql.as_ptr(), -1, &raw mut statement, std::ptr::null_mut());
            if code == ffi::SQLITE_OK { code } else { ffi::sqlite3_extended_errcode(db.handle()) }
        };
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
        let cursor = Cursor { statement };
        match cursor.step()? {
            Some(row) => Ok((Some(cursor), Some(row))),
            None => Ok((None, None)),
        }
    }

    fn step(&self) -> Result<Option<String>, i32> {
        // SAFETY: the statement is not finalized before `self` is dropped, and its connection is not closed before
        // (SQLite keeps it as a zombie if it is).
        unsafe {
            match ffi::sqlite3_step(self.statement) {
                ffi::SQLITE_ROW => {
                    let columns = ffi::sqlite3_column_count(self.statement);
                    let row: Vec<String> = (0..columns).map(|i| column(self.statement, i)).collect();
                    Ok(Some(row.join("|")))
                }
                ffi::SQLITE_DONE => Ok(None),
                _ => Err(ffi::sqlite3_extended_errcode(ffi::sqlite3_db_handle(self.statement))),
            }
        }
    }

    /// The rows that are left.
    ///
    /// # Errors
    /// SQLite's extended code.
    pub fn drain(self) -> Result<Vec<String>, i32> {
        let mut rows = Vec::new();
        while let Some(row) = self.step()? {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// # Safety
/// The statement has a row and a column `i`.
unsafe fn column(statement: *mut ffi::sqlite3_stmt, i: i32) -> String {
    // SAFETY: as the caller says; the text is copied before the next call on the statement.
    unsafe {
        let text = ffi::sqlite3_column_text(statement, i);
        if text.is_null() { "-".to_owned() } else { CStr::from_ptr(text.cast()).to_string_lossy().into_owned() }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: finalized once, here.
        unsafe { ffi::sqlite3_finalize(self.statement) };
    }
}
