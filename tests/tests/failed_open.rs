//! A database is opened for the first time, and that fails: limits are met, shared memory is full. The stock file that it
//! was must be one still, with nothing beside it, for nothing newer than it is anywhere.

#![allow(clippy::panic)]

use nvlite_engine::{BaseFile, BaseOpener, Error, MediumKind, Options, Result, Store};
use nvlite_tests::child::{self, SKIPPED, Task};
use nvlite_tests::limits::{Limit, limit, own_shm};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::sql::{System, log, stock_file, stock_integrity};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const OPENED: i32 = 2;
const REFUSED: i32 = 3;

/// Not a test of its own: what the others run in a process of its own.
#[test]
fn in_a_child() {
    log::listen();
    let Some(Task { role, path, system, most }) = child::task() else { return };
    match role.as_str() {
        "size" => limit(Limit::FileSize, most),
        "addresses" => limit(Limit::Addresses, most),
        "files" => limit(Limit::Files, most),
        options if !own_shm(options) => child::answer(SKIPPED),
        _ => {}
    }
    let done = system.open_with(&path, 100, "&region=1MiB").and_then(|db| {
        db.execute("INSERT INTO t(b) VALUES(1)", [])?;
        db.close().map_err(|(_, error)| error)
    });
    let Err(error) = done else { child::answer(OPENED) };
    eprintln!("{error}: {:?}", log::lines(&path.display().to_string()));
    child::answer(REFUSED);
}

/// Opens a stock file in a child. True if that was refused, and the file was left as it should be.
fn refused(role: &str, system: System, most: u64) -> bool {
    let scratch = system.scratch();
    let path = scratch.path("stock.db");
    stock_file(&path).expect("stock");
    let Some((code, said)) = child::run(role, &path, system, most) else { return true };
    let context = format!("{system:?}, {role}, {most}: {said}");
    assert!([OPENED, REFUSED].contains(&code), "{context}");
    assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{context}");
    // whoever made an empty region file and then could not lock it must leave it: another may have
    let empty = |name: &String| std::fs::metadata(scratch.path(name)).is_ok_and(|data| data.len() == 0);
    let names: Vec<String> = scratch.names().into_iter().filter(|name| !empty(name)).collect();
    assert_eq!(names, ["stock.db"], "{context}");
    code == REFUSED
}

#[test]
fn a_file_size_limit() {
    for system in System::NVLITE {
        for kib in [64, 2000, 100 << 10] {
            assert!(refused("size", system, kib << 10), "{system:?}, {kib} KiB");
        }
    }
}

#[test]
fn a_limit_of_address_space() {
    for system in System::NVLITE {
        assert!(refused("addresses", system, 4 << 30), "{system:?}");
    }
}

#[test]
fn a_limit_of_open_files() {
    for system in System::NVLITE {
        // with three standard streams; some of these are enough
        let refusals = (4..24).filter(|&n| refused("files", system, n)).count();
        assert!((1..20).contains(&refusals), "{system:?}: {refusals}");
    }
}

#[test]
fn shared_memory_in_which_nothing_can_be_made() {
    assert!(refused("size=200m,nr_inodes=1", System::File, 0));
}

/// A base of which one look fails: an opening, or that for its identity.
struct Failing {
    inner: PlainBase,
    left: AtomicU32,
}

impl Failing {
    fn look(&self) -> Result<()> {
        let broken = std::io::Error::from_raw_os_error(libc::EMFILE);
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(Error::io(self.inner.path(), "look at", broken)),
            _ => Ok(()),
        }
    }
}

impl BaseOpener for Failing {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        self.look().and_then(|()| self.inner.open())
    }
    fn recover_stock(&self) -> Result<()> {
        self.look()
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        self.look().and_then(|()| self.inner.identity())
    }
}

#[test]
fn a_base_that_cannot_be_looked_at_again() {
    for (system, kind) in [(System::File, MediumKind::File), (System::Ram, MediumKind::Ram)] {
        let mut refusals = 0;
        for left in 0.. {
            let scratch = system.scratch();
            let path = scratch.path("stock.db");
            stock_file(&path).expect("stock");
            let base = Arc::new(Failing { inner: PlainBase::new(&path), left: AtomicU32::new(left) });
            let options = Options { medium: Some(kind), region: 1 << 20, ..Options::default() };
            let attached = Store::attach(base, &options);
            let opened = attached.is_ok();
            drop(attached);
            if opened {
                break; // what fails later fails a close
            }
            refusals += 1;
            assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{kind:?}, {left}");
            assert_eq!(scratch.names(), ["stock.db"], "{kind:?}, {left}");
        }
        assert!(refusals > 3, "{kind:?}: {refusals} looks after the adoption began");
    }
}
