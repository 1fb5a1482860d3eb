//! Rollback journals of our databases, in private memory (P8). The engine's commits do not depend on them; they serve
//! ROLLBACK, and ROLLBACK TO, within the connection.
//!
//! What SQLite appends to a journal is, but for a header, records: page number, content of the page before its first
//! change, checksum. Nearly always that content is what the snapshot holds, and then it is not kept here a second time: the
//! record refers to the page, and a read of the journal reads the snapshot. A transaction's journal thus costs a few bytes a
//! page, however many pages it changes, and no copy. (Not always: of a page that becomes free SQLite does not write what it
//! made of it, so that its cache and the database differ; if it journals the page later, the checksum fits the cache.)
//!
//! The journal ends with the transaction: what is left of it when the writer lock goes is never seen again, for others may
//! have written since.
#![allow(unsafe_code)]

use crate::file::{Conn, conn_of};
use crate::sys::*;
use nvlite_engine::PageNo;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[repr(C)]
struct Journal {
    base: sqlite3_file,
    /// The database that it belongs to: SQLite closes a journal before its database.
    owner: *mut sqlite3_file,
    contents: *mut Contents,
}

/// What a journal holds: a file of `literal` bytes, with pages between them.
#[derive(Default)]
struct Contents {
    /// The owner's write transaction that wrote it.
    transaction: u64,
    /// All bytes that are not a page's.
    literal: Vec<u8>,
    /// Ascending.
    pages: Vec<PageAt>,
    /// Bytes of each.
    page_size: u64,
    /// The page number that was just appended.
    expected: Option<PageNo>,
}

/// The content of a page stands at this offset of the journal.
struct PageAt {
    offset: u64,
    page: PageNo,
}

/// Bytes of one kind, from an offset on.
enum Piece {
    /// Of `literal`: where, how many.
    Literal(usize, u64),
    /// Of a page: which, from where in it, how many.
    Page(PageNo, u64, u64),
}

impl Contents {
    fn len(&self) -> u64 {
        self.literal.len() as u64 + self.pages.len() as u64 * self.page_size
    }

    fn clear(&mut self) {
        self.literal.clear();
        self.pages.clear();
        self.expected = None;
    }

    /// What stands at `offset`, which is below the length.
    fn piece(&self, offset: u64) -> Piece {
        let before = self.pages.partition_point(|p| p.offset + self.page_size <= offset);
        match self.pages.get(before) {
            Some(p) if p.offset <= offset => {
                let within = offset - p.offset;
                Piece::Page(p.page, within, self.page_size - within)
            }
            next => {
                let end = next.map_or(self.len(), |p| p.offset);
                Piece::Literal((offset - before as u64 * self.page_size) as usize, end - offset)
            }
        }
    }

    /// Goes over the pieces of a range within the length; `run` gets a piece and the part of the range that it covers.
    fn each_piece(
        &self,
        offset: u64,
        length: usize,
        mut run: impl FnMut(Piece, std::ops::Range<usize>) -> c_int,
    ) -> c_int {
        let mut done = 0;
        while done < length {
            let piece = self.piece(offset + done as u64);
            let (Piece::Literal(_, there) | Piece::Page(_, _, there)) = piece;
            let n = there.min((length - done) as u64) as usize;
            let code = run(piece, done..done + n);
            if code != SQLITE_OK {
                return code;
            }
            done += n;
        }
        SQLITE_OK
    }

    fn append(&mut self, conn: &mut Conn, bytes: &[u8]) -> c_int {
        let offset = self.len();
        let after_page = self.pages.last().is_some_and(|p| p.offset + self.page_size == offset);
        if let Some(page) = self.expected.take()
            && conn.is_before_image(page, bytes)
        {
            self.page_size = bytes.len() as u64;
            self.pages.push(PageAt { offset, page });
            return SQLITE_OK;
        }
        if self.literal.try_reserve(bytes.len()).is_err() {
            return SQLITE_NOMEM;
        }
        self.literal.extend_from_slice(bytes);
        // Four bytes after a page are its checksum, any others perhaps the number of the next.
        if let (false, Ok(number)) = (after_page, <[u8; 4]>::try_from(bytes)) {
            self.expected = Some(PageNo(u32::from_be_bytes(number)));
        }
        SQLITE_OK
    }

    fn write(&mut self, conn: &mut Conn, offset: u64, bytes: &[u8]) -> c_int {
        if offset == 0 && bytes.first() == Some(&0) {
            // "If the journal header is overwritten with zeros, the journal is not valid": the transaction has ended.
            self.clear();
            return SQLITE_OK;
        }
        let length = self.len();
        if offset > length {
            // to the next sector
            let gap = usize::try_from(offset - length).unwrap_or(usize::MAX);
            if self.literal.try_reserve(gap).is_err() {
                return SQLITE_NOMEM;
            }
            self.literal.resize(self.literal.len() + gap, 0);
            self.expected = None;
        }
        if offset >= length {
            return self.append(conn, bytes);
        }
        if offset + bytes.len() as u64 > length {
            return SQLITE_IOERR;
        }
        let mut changes = Vec::new();
        let code = self.each_piece(offset, bytes.len(), |piece, range| match piece {
            Piece::Literal(at, _) => {
                changes.push((at, range));
                SQLITE_OK
            }
            // SQLite never journals a page twice
            Piece::Page(..) => SQLITE_IOERR,
        });
        if code == SQLITE_OK {
            for (at, range) in changes {
                self.literal[at..at + range.len()].copy_from_slice(&bytes[range]);
            }
        }
        code
    }

    fn read(&self, conn: &mut Conn, offset: u64, into: &mut [u8]) -> c_int {
        let there = self.len().saturating_sub(offset).min(into.len() as u64) as usize;
        into[there..].fill(0);
        let code = self.each_piece(offset, there, |piece, range| match piece {
            Piece::Literal(at, _) => {
                let n = range.len();
                into[range].copy_from_slice(&self.literal[at..at + n]);
                SQLITE_OK
            }
            Piece::Page(page, within, _) => conn.read_before_image(page, within as u32, &mut into[range]),
        });
        match code {
            SQLITE_OK if there < into.len() => SQLITE_IOERR_SHORT_READ,
            code => code,
        }
    }

    fn truncate(&mut self, size: u64) {
        if size >= self.len() {
            return;
        }
        let pages = self.pages.partition_point(|p| p.offset + self.page_size <= size);
        self.pages.truncate(pages);
        self.literal.truncate(size.saturating_sub(self.pages.len() as u64 * self.page_size) as usize);
        self.expected = None;
    }
}

/// Bytes of memory that such a file needs.
pub const FILE_SIZE: usize = size_of::<Journal>();

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_nothing),
    xUnlock: Some(x_nothing),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// xOpen of a journal.
///
/// # Safety
/// `file` is unopened memory of at least [`FILE_SIZE`] bytes; `owner` is an open file of ours, and is closed after this one;
/// `out` is null or writable.
pub unsafe fn open(file: *mut sqlite3_file, owner: *mut sqlite3_file, flags: c_int, out: *mut c_int) -> c_int {
    let contents = Box::into_raw(Box::default());
    let journal = Journal { base: sqlite3_file { pMethods: &raw const METHODS }, owner, contents };
    // SAFETY: as the caller promises.
    unsafe {
        file.cast::<Journal>().write(journal);
        if let Some(out) = out.as_mut() {
            *out = flags;
        }
    }
    SQLITE_OK
}

/// Runs a method; everything that panics is an I/O error.
fn call(file: *mut sqlite3_file, run: impl FnOnce(&mut Contents, &mut Conn) -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: SQLite calls these methods with these files only, from one thread at a time, and while it calls them no
        // method of the database runs.
        let (contents, owner) = unsafe {
            let journal = &*file.cast::<Journal>();
            (&mut *journal.contents, conn_of(journal.owner))
        };
        let Some(conn) = owner else { return SQLITE_IOERR };
        if contents.transaction != conn.transaction() {
            contents.clear();
            contents.transaction = conn.transaction();
        }
        run(contents, conn)
    }))
    .unwrap_or(SQLITE_IOERR)
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: closed once; the box was made by `open`.
    unsafe {
        (*file).pMethods = std::ptr::null();
        drop(Box::from_raw((*file.cast::<Journal>()).contents));
    }
    SQLITE_OK
}

unsafe extern "C" fn x_read(file: *mut sqlite3_file, into: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    call(file, |contents, conn| {
        let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else { return SQLITE_IOERR };
        // SAFETY: SQLite gives `amount` bytes to write to.
        let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), amount) };
        contents.read(conn, offset, into)
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    call(file, |contents, conn| {
        let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else { return SQLITE_IOERR };
        // SAFETY: SQLite gives `amount` bytes to read.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), amount) };
        contents.write(conn, offset, bytes)
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    call(file, |contents, conn| {
        contents.truncate(u64::try_from(size).unwrap_or(0));
        if size == 0 {
            conn.journal_cut();
        }
        SQLITE_OK
    })
}

/// Nothing here is to be durable, but what SQLite syncs tells what it wants to be.
unsafe extern "C" fn x_sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    call(file, |_, conn| {
        conn.journal_synced();
        SQLITE_OK
    })
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    call(file, |contents, _| {
        // SAFETY: SQLite waits for the answer there.
        unsafe { *size = contents.len().cast_signed() };
        SQLITE_OK
    })
}

unsafe extern "C" fn x_nothing(_file: *mut sqlite3_file, _: c_int) -> c_int {
    SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(_file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite waits for the answer there.
    unsafe { *out = 0 };
    SQLITE_OK
}

unsafe extern "C" fn x_file_control(_file: *mut sqlite3_file, _op: c_int, _argument: *mut c_void) -> c_int {
    SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_file: *mut sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn x_device_characteristics(_file: *mut sqlite3_file) -> c_int {
    // Memory of this process: no other order, no torn append, nobody who deletes it.
    SQLITE_IOCAP_SAFE_APPEND
        | SQLITE_IOCAP_SEQUENTIAL
        | SQLITE_IOCAP_POWERSAFE_OVERWRITE
        | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
}
