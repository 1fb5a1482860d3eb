//! What an attachment asks for and cannot have is refused before anything depends on it: a base that is marked for a region
//! which never opens is of no use to anybody. And what is in the way of one is kept.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use nvlite_engine::base::limits::MAX_REGION;
use nvlite_engine::shm::Segment;
use nvlite_engine::{BaseFile, BaseOpener, Durability::Full, Error, MediumKind, Options, Result, Store, mapping_len};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{all_are, commit};
use nvlite_tests::sql::stock_integrity;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A limit that a test sets is the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

fn attach(dir: &Path, region: u64) -> Result<Arc<Store>> {
    let options = Options { medium: Some(MediumKind::File), region, ..Options::default() };
    Store::attach(Arc::new(PlainBase::new(&dir.join("a.db"))), &options)
}

fn limit_files_to(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
}

#[test]
fn p14_what_is_refused_leaves_the_base_as_it_was() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let store = attach(dir.path(), 1 << 20).unwrap();
    commit(&mut store.session().unwrap(), 4, 2..=4, 1, Full).unwrap();
    store.close().unwrap();
    let file = std::fs::read(dir.path().join("a.db")).unwrap();
    assert_eq!(file[18], 1, "a stock file");
    let unchanged = |what: &str, refused: Result<Arc<Store>>, reason: &str| {
        match refused.map(|_| ()) {
            Err(Error::CantOpen { reason: why, .. } | Error::Full { cause: why, .. }) if why.contains(reason) => {}
            other => panic!("{what}: {other:?}"),
        }
        assert!(std::fs::read(dir.path().join("a.db")).unwrap() == file, "{what}: the base was changed");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{what}: side files are left");
    };
    // Failure: every later open refuses what this one has written.
    for region in [MAX_REGION + 1, 1 << 46, (1 << 46) + 1, u64::MAX] {
        unchanged("a region too large", attach(dir.path(), region), "the most possible");
    }
    for kind in [MediumKind::File, MediumKind::Ram] {
        let len = mapping_len(MAX_REGION, kind) + 4096;
        assert!(len <= nvlite_engine::base::limits::MAX_MAPPING, "{kind:?}: the largest region has a mapping");
    }
    // Failure: there is no room for the mapping, and the base is marked by then.
    limit_files_to(1 << 30);
    assert!(Segment::create(&dir.path().join("mapping"), 2 << 30).is_err());
    unchanged("no room for the mapping", attach(dir.path(), 1 << 20), "RLIMIT_FSIZE");
    limit_files_to(libc::RLIM_INFINITY);
    let store = attach(dir.path(), 1 << 20).unwrap();
    assert!(all_are(&mut store.session().unwrap(), 2..=4, 1).unwrap());
    store.close().unwrap();
}

#[test]
fn p14_what_was_set_aside_stays_whatever_is_set_aside_later() {
    // Failure: a second region that cannot be read is put in the place of the first, which may be the one that is needed.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let newer = [&b"NVLITERG\xff"[..], &[0; 4087]].concat(); // of another version, which may have its log elsewhere
    for (n, superblock) in [(1, vec![1; 4096]), (2, vec![2; 4096]), (3, newer)] {
        std::fs::write(dir.path().join("a.db-nvlite"), superblock.repeat(2)).unwrap();
        std::fs::write(dir.path().join("a.db-cold"), vec![n; 100]).unwrap();
        attach(dir.path(), 1 << 20).unwrap().close().unwrap();
    }
    let aside = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.display().to_string().contains(".stale-unreadable")).collect();
    let mut found: Vec<_> =
        aside.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap()[0])).collect();
    found.sort();
    let numbers: Vec<u8> = found.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, [1, 2, 3, 1, 2, b'N'], "{found:?}: each cold file beside its region");
}

/// A base of which one directory, or the file itself, is said to lie on another file system.
struct Elsewhere {
    inner: PlainBase,
    place: PathBuf,
    magic: u64,
}

impl BaseOpener for Elsewhere {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        self.inner.open()
    }
    fn recover_stock(&self) -> Result<()> {
        self.inner.recover_stock()
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        self.inner.identity()
    }
    fn file_system(&self, path: &Path) -> Result<u64> {
        if path == self.place { Ok(self.magic) } else { self.inner.file_system(path) }
    }
}

#[test]
fn p14_network_file_systems_are_refused_for_a_marked_base_too() {
    // Failure: a database that was moved to one, or is mounted from one, is opened by two machines with a mapping each.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const NFS: u64 = 0x6969;
    const NINE_P: u64 = 0x0102_1997;
    const GPFS: u64 = 0x4750_4653;
    const EXT4: u64 = 0xEF53;
    for marked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let options =
            |keep| Options { medium: Some(MediumKind::File), region: 1 << 20, keep_region: keep, ..Options::default() };
        let store = Store::attach(Arc::new(PlainBase::new(&path)), &options(marked)).unwrap();
        commit(&mut store.session().unwrap(), 4, 2..=4, 1, Full).unwrap();
        store.close().unwrap();
        let file = std::fs::read(&path).unwrap();
        assert_eq!(file[18] == 3, marked);
        let on = |place: &Path, magic| {
            let base = Elsewhere { inner: PlainBase::new(&path), place: place.to_owned(), magic };
            Store::attach(Arc::new(base), &options(false))
        };
        for (place, magic) in [(path.as_path(), NFS), (dir.path(), NFS), (dir.path(), NINE_P), (&path, GPFS)] {
            match on(place, magic).map(|_| ()) {
                Err(Error::CantOpen { reason, .. }) if reason.contains("network file systems") => {}
                other => panic!("{magic:#x} at {}, marked {marked}: {other:?}", place.display()),
            }
            assert!(std::fs::read(&path).unwrap() == file, "the base was changed");
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count() > 1,
            marked,
            "no side files but those that were there"
        );
        let store = on(dir.path(), EXT4).unwrap();
        assert!(all_are(&mut store.session().unwrap(), 2..=4, 1).unwrap());
        store.close().unwrap();
    }
}

/// A base of which a stock process takes hold so many times after it was recovered, to be killed in a transaction that has
/// spilled.
struct Interrupted {
    inner: PlainBase,
    /// What it leaves.
    left: PathBuf,
    times: AtomicU32,
}

impl BaseOpener for Interrupted {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        self.inner.open()
    }
    fn recover_stock(&self) -> Result<()> {
        let stock = rusqlite::Connection::open(self.path()).unwrap();
        stock.execute_batch("PRAGMA journal_mode=DELETE; SELECT count(*) FROM sqlite_schema").unwrap();
        drop(stock);
        if self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            for suffix in ["", "-journal"] {
                let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                std::fs::copy(name(&self.left), name(self.path())).unwrap();
            }
        }
        Ok(())
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        self.inner.identity()
    }
}

#[test]
fn p14_a_journal_that_a_stock_process_leaves_behind_the_recovery_is_rolled_back() {
    // Failure: the base is marked as it is in the middle of that transaction, and the journal is never applied.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let sum = |path: &Path| -> String {
        let sql = "SELECT hex(group_concat(substr(body,1,2),'')) FROM t";
        rusqlite::Connection::open(path).unwrap().query_row(sql, (), |row| row.get(0)).unwrap()
    };
    for times in [1, 3, 100] {
        let dir = tempfile::tempdir().unwrap();
        let (path, left) = (dir.path().join("a.db"), dir.path().join("left.db"));
        let stock = rusqlite::Connection::open(&path).unwrap();
        let rows =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT randomblob(500) FROM n";
        stock.execute_batch(&format!("CREATE TABLE t(body); INSERT INTO t {rows}")).unwrap();
        let before = sum(&path);
        stock.execute_batch("PRAGMA cache_size=5; BEGIN; UPDATE t SET body=randomblob(500)").unwrap();
        std::fs::copy(&path, &left).unwrap();
        std::fs::copy(dir.path().join("a.db-journal"), dir.path().join("left.db-journal")).unwrap();
        stock.execute_batch("ROLLBACK").unwrap();
        drop(stock);
        let base = Interrupted { inner: PlainBase::new(&path), left, times: AtomicU32::new(times) };
        let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
        match Store::attach(Arc::new(base), &options) {
            Ok(store) => {
                assert!(!dir.path().join("a.db-journal").exists(), "{times}: marked with a journal beside it");
                store.close().unwrap();
            }
            // rather than for ever
            Err(error) => assert!(times == 100 && matches!(error, Error::Busy(_)), "{times}: {error}"),
        }
        assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{times}");
        assert_eq!(sum(&path), before, "{times}");
        assert!(!dir.path().join("a.db-nvlite").exists(), "{times}");
    }
}
