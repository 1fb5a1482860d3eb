//! Rollback journals that refer to the pages of the snapshot (P8).

use crate::support::{Site, check, close, control, fill, int, on_both, stock, text};
use rusqlite::{Connection, ffi};
use std::ffi::c_int;
use std::ptr;

/// All of a table's content, as text.
fn content(db: &Connection) -> String {
    text(db, "SELECT group_concat(id || ':' || hex(substr(body,1,4)) || length(body)) FROM t")
}

/// A connection whose cache holds next to nothing, so that transactions spill.
fn spilling(site: &Site) -> Connection {
    let db = site.open();
    db.execute_batch("PRAGMA cache_size=5").unwrap();
    db
}

#[test]
fn p8_rollback_and_savepoints_restore_what_was_spilled() {
    on_both(|site| {
        let db = spilling(site);
        fill(&db, "t", 1500, 300);
        let before = content(&db);
        db.execute_batch("BEGIN; UPDATE t SET body=randomblob(350) WHERE id%3=0").unwrap();
        let between = content(&db);
        db.execute_batch("SAVEPOINT s; UPDATE t SET body=randomblob(400); DELETE FROM t WHERE id>700; ROLLBACK TO s")
            .unwrap();
        assert!(content(&db) == between);
        check(&db);
        db.execute_batch("DELETE FROM t WHERE id<700; ROLLBACK").unwrap();
        assert!(content(&db) == before);
        check(&db);
        close(db);
        assert!(content(&site.stock()) == before);
    });
}

/// A file of a connection, called as SQLite would.
struct Raw(*mut ffi::sqlite3_file);

impl Raw {
    fn of(db: &Connection, op: c_int) -> Raw {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        assert_eq!(control(db, op, &mut file), ffi::SQLITE_OK);
        Raw(file)
    }

    fn journal(db: &Connection) -> Raw {
        Raw::of(db, ffi::SQLITE_FCNTL_JOURNAL_POINTER)
    }

    fn database(db: &Connection) -> Raw {
        Raw::of(db, ffi::SQLITE_FCNTL_FILE_POINTER)
    }

    fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: an open file of a connection that is idle.
        unsafe { &*(*self.0).pMethods }
    }

    fn size(&self) -> usize {
        let mut size = 0;
        // SAFETY: as above, here and below; sizes are those of the slices.
        assert_eq!(unsafe { (self.methods().xFileSize.unwrap())(self.0, &mut size) }, ffi::SQLITE_OK);
        usize::try_from(size).unwrap()
    }

    fn read(&self, offset: usize, n: usize) -> (c_int, Vec<u8>) {
        let mut bytes = vec![0xAA; n];
        // SAFETY: see `size`.
        let code =
            unsafe { (self.methods().xRead.unwrap())(self.0, bytes.as_mut_ptr().cast(), n as c_int, offset as i64) };
        (code, bytes)
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> c_int {
        // SAFETY: see `size`.
        unsafe { (self.methods().xWrite.unwrap())(self.0, bytes.as_ptr().cast(), bytes.len() as c_int, offset as i64) }
    }

    fn truncate(&self, size: usize) {
        // SAFETY: see `size`.
        assert_eq!(unsafe { (self.methods().xTruncate.unwrap())(self.0, size as i64) }, ffi::SQLITE_OK);
    }

    fn lock(&self, level: c_int) {
        // SAFETY: see `size`.
        assert_eq!(unsafe { (self.methods().xLock.unwrap())(self.0, level) }, ffi::SQLITE_OK);
    }

    fn unlock(&self, level: c_int) {
        // SAFETY: see `size`.
        assert_eq!(unsafe { (self.methods().xUnlock.unwrap())(self.0, level) }, ffi::SQLITE_OK);
    }
}

#[test]
fn p8_a_journal_reads_as_it_was_written() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 100, 300);
        let before = content(&db);
        db.execute_batch("BEGIN IMMEDIATE; UPDATE t SET body=1 WHERE id=1").unwrap();
        let (journal, database) = (Raw::journal(&db), Raw::database(&db));
        let start = journal.size();
        let mut model = journal.read(0, start).1;
        let mut append = |bytes: &[u8]| {
            assert_eq!(journal.write(model.len(), bytes), ffi::SQLITE_OK);
            model.extend_from_slice(bytes);
        };
        for page in [3u32, 4, 5, 6, 3] {
            // As the database holds it, or otherwise: for a page that became free, SQLite journals what its cache holds.
            let (_, mut bytes) = database.read((page as usize - 1) * 4096, 4096);
            bytes[4000] ^= u8::from(page == 5);
            append(&page.to_be_bytes());
            append(&bytes);
            append(&[page as u8; 4]);
        }
        // The next journal header starts at a sector.
        let header = model.len().next_multiple_of(512);
        let gap = vec![0; header - model.len()];
        assert_eq!(journal.write(header, &[7; 512]), ffi::SQLITE_OK);
        model.extend(gap);
        model.extend([7; 512]);
        // Overwritten where no page stands, which is all that SQLite ever does.
        assert_eq!(journal.write(start, &[9; 4]), ffi::SQLITE_OK);
        model[start..start + 4].fill(9);
        assert_eq!(journal.write(start + 100, &[9; 4]), ffi::SQLITE_IOERR);
        let same = |model: &[u8]| {
            assert_eq!(journal.size(), model.len());
            for offset in (0..model.len() + 600).step_by(301) {
                for n in [1, 4, 16, 512, 4096, 9000] {
                    let (code, bytes) = journal.read(offset, n);
                    let there = model.len().saturating_sub(offset).min(n);
                    let short = there < n;
                    assert_eq!(code, if short { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK });
                    let from = offset.min(model.len());
                    assert!(bytes[..there] == model[from..from + there], "{n} bytes at {offset}");
                    assert!(bytes[there..].iter().all(|b| *b == 0));
                }
            }
        };
        same(&model);
        journal.truncate(start + 4104 + 4);
        same(&model[..start + 4104 + 4]);
        journal.truncate(start);
        same(&model[..start]);
        db.execute_batch("ROLLBACK").unwrap();
        assert!(content(&db) == before);
    });
}

#[test]
fn p8_a_journal_ends_with_the_writer_lock() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 100, 300);
        let before = content(&db);
        db.execute_batch("BEGIN IMMEDIATE; UPDATE t SET body=randomblob(10)").unwrap();
        let (journal, database) = (Raw::journal(&db), Raw::database(&db));
        assert!(journal.size() > 4096);
        assert_ne!(journal.read(0, 1).1, [0]);
        // As after an error that keeps SQLite from ending the journal itself.
        database.unlock(ffi::SQLITE_LOCK_SHARED);
        assert_eq!(journal.read(0, 1), (ffi::SQLITE_IOERR_SHORT_READ, vec![0]));
        database.lock(ffi::SQLITE_LOCK_RESERVED);
        assert_eq!(journal.size(), 0);
        db.execute_batch("ROLLBACK").unwrap();
        assert!(content(&db) == before);
        db.execute_batch("UPDATE t SET body=1").unwrap();
        assert_eq!(journal.size(), 0);
        assert_eq!(int(&site.open(), "SELECT sum(body) FROM t"), 100);
        check(&db);
        close(db);
        assert!(site.side_files().is_empty());
        check(&stock(&site.path()));
    });
}
