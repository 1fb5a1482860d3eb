//! One test per file control that a VFS may answer (and that it does not answer what it does not know).

use crate::support::*;
use rusqlite::{Connection, ffi};
use std::ffi::{c_char, c_int};
use std::ptr;

fn with_table(site: &Site) -> Connection {
    let db = site.open();
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    db
}

#[test]
fn lockstate_follows_the_transaction() {
    on_both(|site| {
        let db = with_table(site);
        let mut state: c_int = -1;
        let mut now = || {
            assert_eq!(control(&db, ffi::SQLITE_FCNTL_LOCKSTATE, &mut state), ffi::SQLITE_OK);
            state
        };
        assert_eq!(now(), ffi::SQLITE_LOCK_NONE);
        db.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        assert_eq!(now(), ffi::SQLITE_LOCK_SHARED);
        db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert!(now() >= ffi::SQLITE_LOCK_RESERVED);
        db.execute_batch("COMMIT").unwrap();
        assert_eq!(now(), ffi::SQLITE_LOCK_NONE);
    });
}

#[test]
fn last_errno_is_zero_without_error() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut errno: c_int = -1;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_LAST_ERRNO, &mut errno), ffi::SQLITE_OK);
    assert_eq!(errno, 0);
}

#[test]
fn last_errno_is_what_the_system_said() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = nvlite_vfs::OpenOptions::new().region_dir(site.file("missing")).open(site.path()).unwrap();
    assert_eq!(fails(db.execute_batch("CREATE TABLE t(x)")) & 0xFF, ffi::SQLITE_CANTOPEN);
    let mut errno: c_int = -1;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_LAST_ERRNO, &mut errno), ffi::SQLITE_OK);
    assert_eq!(std::io::Error::from_raw_os_error(errno).kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn size_hint_chunk_size_and_overwrite_are_accepted() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut size: i64 = 1 << 20;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_SIZE_HINT, &mut size), ffi::SQLITE_OK);
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_OVERWRITE, &mut size), ffi::SQLITE_OK);
    let mut chunk: c_int = 1 << 20;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_CHUNK_SIZE, &mut chunk), ffi::SQLITE_OK);
    check(&db);
}

#[test]
fn vfsname_names_both() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut name: *mut c_char = ptr::null_mut();
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_VFSNAME, &mut name), ffi::SQLITE_OK);
    assert_eq!(take_text(name), "nvlite/unix");
}

#[test]
fn powersafe_overwrite_stays_on() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    for asked in [-1, 0, 1] {
        let mut psow: c_int = asked;
        assert_eq!(control(&db, ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE, &mut psow), ffi::SQLITE_OK);
        assert_eq!(psow, 1);
    }
}

#[test]
fn temp_file_names_come_from_the_default_vfs() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut name: *mut c_char = ptr::null_mut();
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_TEMPFILENAME, &mut name), ffi::SQLITE_OK);
    assert!(take_text(name).contains("etilqs"));
}

#[test]
fn mmap_size_is_kept_and_answered() {
    on_both(|site| {
        let db = with_table(site);
        assert_eq!(
            int(&db, "PRAGMA mmap_size"),
            0x7fff_0000,
            "pages are read in place unless the program says otherwise"
        );
        assert_eq!(int(&db, "PRAGMA mmap_size=0"), 0);
        assert_eq!(int(&db, "PRAGMA mmap_size"), 0);
        assert_eq!(int(&db, "PRAGMA mmap_size=1048576"), 1 << 20);
        assert_eq!(int(&db, "PRAGMA mmap_size"), 1 << 20);
        let mut limit: i64 = -1;
        assert_eq!(control(&db, ffi::SQLITE_FCNTL_MMAP_SIZE, &mut limit), ffi::SQLITE_OK);
        assert_eq!(limit, 1 << 20);
        fill(&db, "b", 200, 900);
        assert_eq!(int(&db, "SELECT sum(length(body)) FROM b"), 180_000);
        db.execute("UPDATE b SET body = randomblob(901) WHERE id % 3 = 0", ()).unwrap();
        assert_eq!(int(&db, "SELECT sum(length(body)) FROM b"), 180_066);
        check(&db);
    });
}

#[test]
fn only_databases_of_ours_are_read_in_place_by_default() {
    let site = Site::new(nvlite_vfs::Medium::File);
    drop(with_table(&site));
    let stock = rusqlite::Connection::open(site.file("stock.db")).unwrap();
    assert_eq!(int(&stock, "PRAGMA mmap_size"), 0);
}

#[test]
fn has_moved_says_no() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut moved: c_int = -1;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_HAS_MOVED, &mut moved), ffi::SQLITE_OK);
    assert_eq!(moved, 0);
}

#[test]
fn lock_timeout_answers_the_one_before() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut timeout: c_int = 250;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_LOCK_TIMEOUT, &mut timeout), ffi::SQLITE_OK);
    assert_eq!(timeout, 0);
    timeout = 0;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_LOCK_TIMEOUT, &mut timeout), ffi::SQLITE_OK);
    assert_eq!(timeout, 250);
    let mut on: c_int = 1;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_BLOCK_ON_CONNECT, &mut on), ffi::SQLITE_OK);
}

#[test]
fn busyhandler_is_accepted_and_never_called() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    unsafe extern "C" fn called(_: *mut std::ffi::c_void) -> c_int {
        std::process::abort();
    }
    let handler: unsafe extern "C" fn(*mut std::ffi::c_void) -> c_int = called;
    let mut pair = [handler as *mut std::ffi::c_void, ptr::null_mut()];
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_BUSYHANDLER, &mut pair), ffi::SQLITE_OK);
    let writer = site.open();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_BUSYHANDLER, &mut pair), ffi::SQLITE_OK);
    assert_eq!(fails(db.execute_batch("INSERT INTO t VALUES (2)")) & 0xFF, ffi::SQLITE_BUSY);
}

#[test]
fn another_connection_of_this_process_is_no_external_reader() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let _second = site.open();
    let mut reader: c_int = -1;
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_EXTERNAL_READER, &mut reader), ffi::SQLITE_OK);
    assert_eq!(reader, 0);
}

#[test]
fn what_is_unknown_is_not_found() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let atomic = [
        ffi::SQLITE_FCNTL_BEGIN_ATOMIC_WRITE,
        ffi::SQLITE_FCNTL_COMMIT_ATOMIC_WRITE,
        ffi::SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE,
    ];
    for op in atomic.into_iter().chain([ffi::SQLITE_FCNTL_SIZE_LIMIT, ffi::SQLITE_FCNTL_PERSIST_WAL, 9999]) {
        let mut argument = [0i64; 4];
        assert_eq!(control(&db, op, &mut argument), ffi::SQLITE_NOTFOUND, "operation {op}");
    }
}

/// What `SQLITE_FCNTL_FILESTAT` says of a connection.
fn file_stat(db: &Connection) -> String {
    // SAFETY: a string builder, finished once.
    unsafe {
        let builder = ffi::sqlite3_str_new(ptr::null_mut());
        let code = ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILESTAT, builder.cast());
        assert_eq!(code, ffi::SQLITE_OK);
        take_text(ffi::sqlite3_str_finish(builder))
    }
}

#[test]
fn filestat_tells_json() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let text = file_stat(&db);
    assert!(text.contains(r#""vfs":"nvlite""#), "{text}");
}

#[test]
fn a_connection_that_may_write_attaches_when_it_opens_and_another_when_it_reads() {
    on_both(|site| {
        let attached = |db: &Connection| file_stat(db).contains(r#""attached":true"#);
        let db = site.options().keep_region(true).open(site.path()).unwrap();
        assert!(attached(&db));
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        close(db);
        let reader = site.options().read_only(true).open(site.path()).unwrap();
        assert!(!attached(&reader));
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), 0);
        assert!(attached(&reader));
    });
}

#[test]
fn version_3_methods_without_shared_memory_and_honest_characteristics() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = with_table(&site);
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    assert_eq!(control(&db, ffi::SQLITE_FCNTL_FILE_POINTER, &mut file), ffi::SQLITE_OK);
    // SAFETY: an open file of this connection, which is idle.
    unsafe {
        let methods = &*(*file).pMethods;
        assert_eq!(methods.iVersion, 3);
        assert!(methods.xShmMap.is_none() && methods.xShmLock.is_none());
        assert_eq!((methods.xSectorSize.unwrap())(file), 4096);
        let bits = (methods.xDeviceCharacteristics.unwrap())(file);
        let claimed = ffi::SQLITE_IOCAP_SAFE_APPEND
            | ffi::SQLITE_IOCAP_SEQUENTIAL
            | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
            | ffi::SQLITE_IOCAP_SUBPAGE_READ
            | ffi::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
        assert_eq!(bits, claimed, "a new bit needs its sentence and its test");
        let mut reserved: c_int = -1;
        assert_eq!((methods.xCheckReservedLock.unwrap())(file, &mut reserved), ffi::SQLITE_OK);
        assert_eq!(reserved, 0);
    }
}

#[test]
fn check_reserved_lock_sees_another_writer() {
    on_both(|site| {
        let db = with_table(site);
        let writer = site.open();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        assert_eq!(control(&db, ffi::SQLITE_FCNTL_FILE_POINTER, &mut file), ffi::SQLITE_OK);
        let mut reserved: c_int = -1;
        // SAFETY: an open file of this connection, which is idle.
        unsafe { ((*(*file).pMethods).xCheckReservedLock.unwrap())(file, &mut reserved) };
        assert_eq!(reserved, 1);
        writer.execute_batch("ROLLBACK").unwrap();
        // SAFETY: as above.
        unsafe { ((*(*file).pMethods).xCheckReservedLock.unwrap())(file, &mut reserved) };
        assert_eq!(reserved, 0);
    });
}
