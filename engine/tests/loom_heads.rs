//! A reader looks a page up in the table of heads while the holder of the writer lock changes the table (P12).
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use nvlite_engine::base::{BlockNo, PageNo, VirtNo};
use nvlite_engine::heads::{self, Entry, Tables};
use nvlite_engine::shm::{Liveness, SlotNo, Slots};
use nvlite_engine::{Place, Result};

/// Log2 of the size of every table here.
const LOG: u32 = 2;

/// Two tables of four entries, and the content of each virtblock.
struct World {
    area: AtomicU32,
    used: AtomicU32,
    tombs: AtomicU32,
    sides: [[Entry; 1 << LOG]; 2],
    slots: Slots,
    contents: [UnsafeCell<u32>; 4],
}

// SAFETY: what is under test; loom reports a content that is read while it is written.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl Tables for World {
    fn area(&self) -> &AtomicU32 {
        &self.area
    }

    fn used(&self) -> &AtomicU32 {
        &self.used
    }

    fn tombs(&self) -> &AtomicU32 {
        &self.tombs
    }

    fn entries(&self, area: u32) -> &[Entry] {
        assert_eq!(area >> 1, LOG, "no table need grow");
        &self.sides[(area & 1) as usize]
    }

    fn open(&self, area: u32) -> Result<()> {
        self.entries(area).iter().for_each(Entry::zero);
        Ok(())
    }

    fn slots(&self) -> &Slots {
        &self.slots
    }
}

fn world() -> (Arc<World>, SlotNo) {
    let slots = Slots::model(1);
    let live = Liveness::solo();
    let reader = slots.claim(live.own(), &live).expect("a slot");
    let w = World {
        area: AtomicU32::new(LOG << 1),
        used: AtomicU32::new(0),
        tombs: AtomicU32::new(0),
        sides: std::array::from_fn(|_| std::array::from_fn(|_| Entry::new())),
        slots,
        contents: std::array::from_fn(|_| UnsafeCell::new(0)),
    };
    (Arc::new(w), reader)
}

/// Pages whose search begins at the same entry.
fn colliding<const N: usize>(at: u64) -> [PageNo; N] {
    let mut pages = (1..).map(PageNo).filter(|&page| heads::hash(page) & ((1 << LOG) - 1) == at);
    std::array::from_fn(|_| pages.next().expect("one in four"))
}

impl World {
    /// Makes a new version of `page`: the content first, then the head.
    fn write(&self, page: PageNo, v: u32) {
        // SAFETY: loom checks it.
        self.contents[v as usize].with_mut(|p| unsafe { *p = page.0 });
        heads::set(self, page, VirtNo(v), Place::Fast(BlockNo(v)));
    }

    /// The newest version of `page`, which must have the page's content.
    fn read(&self, page: PageNo) -> Option<u32> {
        let (v, _) = heads::find(self, page)?;
        // SAFETY: loom checks it.
        assert_eq!(self.contents[v.0 as usize].with(|p| unsafe { *p }), page.0, "the version of another page");
        Some(v.0)
    }

    /// Takes pages out, which leaves the table full of tombs, and so moves to the other.
    fn remove_and_move(&self, pages: [PageNo; 2]) {
        let before = self.area.load(Ordering::Relaxed);
        pages.iter().for_each(|&page| heads::remove(self, page));
        heads::reserve(self, 0).expect("nothing to fail");
        assert_ne!(self.area.load(Ordering::Relaxed), before, "it was more than half full");
    }
}

/// Failure: the head is seen before the content that it leads to, and a reader reads a block that is being written; or a
/// reader that has seen a version sees an older one later.
#[test]
fn p12_a_version_that_is_found_may_be_read() {
    a_reader_never_goes_back(Some(1));
}

/// Failure: as above, for a page that was at home, in an entry that was never used.
#[test]
fn p12_a_version_that_is_found_first_may_be_read() {
    a_reader_never_goes_back(None);
}

/// Two reads of a page beside two writes; `first` was written before, else it is at home.
fn a_reader_never_goes_back(first: Option<u32>) {
    loom::model(move || {
        let (w, _) = world();
        let page = PageNo(7);
        first.into_iter().for_each(|version| w.write(page, version));
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                let seen = [w.read(page), w.read(page)];
                assert!(seen[0] >= first, "it is never at home, once it was written");
                assert!(seen[0] <= seen[1], "back in time");
            })
        };
        let next = first.map_or(1, |version| version + 1);
        w.write(page, next);
        w.write(page, next + 1);
        reader.join().expect("no panic");
    });
}

/// Failure: the search for a page ends at an entry before it that another page has left, and the page is read from its
/// home, which is older; or an entry that is used again sends a reader to another page's version;
/// or a version is put in there while the one before stays, and comes back with the page's removal.
#[test]
fn p12_pages_that_come_and_go_before_it_hide_no_page() {
    loom::model(|| {
        let (w, _) = world();
        // all three begin where the table ends: the search goes round
        let [first, page, next] = colliding((1 << LOG) - 1);
        w.write(first, 0);
        w.write(page, 1);
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                assert!(matches!(w.read(page), Some(1 | 3)));
                assert!(matches!(w.read(first), None | Some(0)));
                assert!(matches!(w.read(next), None | Some(2)));
            })
        };
        heads::remove(&*w, first);
        w.write(page, 3);
        w.write(next, 2);
        reader.join().expect("no panic");
        assert_eq!(w.used.load(Ordering::Relaxed), 2, "the entry is used again");
        heads::remove(&*w, page);
        assert_eq!(w.read(page), None, "an older version was left behind");
    });
}

/// Failure: a reader comes to a table before what was moved there, finds nothing, and reads the page's home, which is
/// older; or it finds the version, and not the content.
#[test]
fn p12_a_move_to_another_table_hides_no_page() {
    loom::model(|| {
        let (w, me) = world();
        let [a, b, page] = colliding(1);
        w.write(a, 2);
        w.write(b, 3);
        w.write(page, 0);
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                let seen = w.slots.get(me).copying(|| w.read(page)).expect("it is never at home");
                assert!(seen < 2);
            })
        };
        w.write(page, 1);
        w.remove_and_move([a, b]);
        reader.join().expect("no panic");
    });
}

/// Failure: the table that a reader probes is cleared and filled anew under it: it finds nothing, and reads the page's
/// home, which is older.
#[test]
fn p12_an_abandoned_table_is_not_cleared_under_a_reader() {
    loom::model(|| {
        let (w, me) = world();
        let [a, b, page] = colliding(1);
        w.write(a, 2);
        w.write(b, 3);
        w.write(page, 0);
        let reader = {
            let w = w.clone();
            thread::spawn(move || assert_eq!(w.slots.get(me).copying(|| w.read(page)), Some(0)))
        };
        w.remove_and_move([a, b]);
        w.write(a, 2);
        w.write(b, 3);
        w.remove_and_move([a, b]);
        assert_eq!(w.area.load(Ordering::Relaxed), LOG << 1, "the first table again");
        reader.join().expect("no panic");
    });
}
