//! Rules of the commit itself: what does not commit takes no number, xTruncate cannot fail between the two calls of a commit
//! (P1), and a commit of more pages than the gate admits leaves arriving readers alone (P2).
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::format::mark;
use nvlite_engine::medium::Mapped;
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{Durability::Full, Error, MediumKind, Region, Session, Store, mapping_len, region_len};
use nvlite_tests::hooked;
use nvlite_tests::rules::{PAGE, Rig, all_are, byte, commit, content, offset, prepare, put_header, stat};
use nvlite_tests::sim::{Fault, Policy};
use nvlite_tests::sql::System;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

const BOTH: [MediumKind; 2] = [MediumKind::Dax, MediumKind::File];
/// Most pages that are stored in place behind the gate.
const GATE_PAGES: u32 = 32;

/// Numbers and slots of the log that are in use.
fn taken(store: &Store) -> [u64; 3] {
    ["jci_published", "commits", "ring_used"].map(|name| stat(store, name))
}

#[test]
fn p1_what_does_not_commit_takes_no_number() {
    // Failure: a rollback, which sends all calls of a commit but the last, or an empty transaction, or one that fails, leaves a
    // gap in the order of commits, or a record that recovery finds.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 8, 2..=8, 1, Full).unwrap();
        let before = taken(&store);
        let end = |s: &mut Session, what: &str| {
            s.end_write();
            s.end_read();
            assert_eq!(taken(&store), before, "{kind:?}: {what}");
        };
        s.begin_write().unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        end(&mut s, "an empty transaction");
        s.begin_write().unwrap();
        s.commit(Full).unwrap();
        end(&mut s, "no preparation");
        prepare(&mut s, 8, 2..=8, 2).unwrap();
        end(&mut s, "a preparation without commit");
        for n in 2..=4 {
            prepare(&mut s, 8, 2..=8, n).unwrap();
            s.truncate(offset(5)).unwrap();
            s.prepare().unwrap();
        }
        end(&mut s, "several preparations without commit");
        // pages without end, and no room for their list: the preparation fails
        s.begin_write().unwrap();
        put_header(&mut s, 8).unwrap();
        rig.world.fail(Some(Fault { after: 0, errno: libc::ENOSPC, times: u64::MAX }));
        let mut failed = (2..=3000).try_for_each(|page| s.write(offset(page), &[7; PAGE]));
        failed = failed.and_then(|()| put_header(&mut s, 3000)).and_then(|()| s.prepare());
        assert!(matches!(failed, Err(Error::Full { .. })), "{kind:?}: {failed:?}");
        s.commit(Full).unwrap();
        rig.world.fail(None);
        end(&mut s, "a preparation that failed");
        drop(rig.crash(Policy::Newest).open().unwrap());
        commit(&mut s, 8, 2..=8, 9, Full).unwrap();
        assert_eq!(stat(&store, "jci_published"), before[0] + 1, "{kind:?}: the next number");
        // and what was prepared in vain stands in no log
        for policy in [Policy::Newest, Policy::Oldest] {
            let after = rig.crash(policy).open().unwrap();
            assert_eq!(stat(&after, "jci_published"), before[0] + 1);
            assert!(all_are(&mut after.session().unwrap(), 2..=8, 9).unwrap());
        }
    }
}

#[test]
fn p1_a_truncation_between_prepare_and_commit_succeeds_whatever_fails() {
    // Failure: SQLite cuts the file between FCNTL_SYNC and COMMIT_PHASETWO, gets an error, and skips the commit of what the
    // other file of the transaction has committed.
    for kind in BOTH {
        for wrong in [None, Some(libc::EIO), Some(libc::ENOSPC)] {
            let rig = Rig::new(kind);
            let store = rig.open().unwrap();
            let (mut s, mut other) = (store.session().unwrap(), store.session().unwrap());
            commit(&mut s, 40, 2..=40, 1, Full).unwrap();
            prepare(&mut s, 10, 2..=4, 2).unwrap();
            rig.world.fail(wrong.map(|errno| Fault { after: 0, errno, times: u64::MAX }));
            for size in [offset(500), offset(11), 0, offset(11)] {
                s.truncate(size).unwrap_or_else(|e| panic!("{kind:?}, {wrong:?}: to {size} bytes: {e}"));
            }
            rig.world.fail(None);
            s.commit(Full).unwrap();
            s.end_write();
            s.end_read();
            other.begin_read().unwrap();
            assert_eq!(other.size().unwrap(), offset(11), "{kind:?}: what page 1 said when it was prepared");
            assert!(all_are(&mut other, 2..=4, 2).unwrap() && all_are(&mut other, 5..=10, 1).unwrap(), "{kind:?}");
        }
    }
}

#[test]
fn p1_what_a_prepared_record_names_stays_until_it_is_prepared_again() {
    // Failure: a write, or a cut, after the preparation gives shadow blocks back that the record names; others take them.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let (mut s, mut other) = (store.session().unwrap(), store.session().unwrap());
        prepare(&mut s, 120, 2..=120, 1).unwrap();
        s.truncate(offset(60)).unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
        prepare(&mut other, 200, 121..=200, 2).unwrap();
        other.commit(Full).unwrap();
        other.end_write();
        assert!(all_are(&mut s, 2..=120, 1).unwrap(), "{kind:?}: it was prepared with all of them");
        s.end_read();
        other.end_read();
        prepare(&mut s, 200, 2..=200, 3).unwrap();
        s.write(offset(7), &content(7, 4)).unwrap();
        let published = stat(&store, "jci_published");
        s.commit(Full).unwrap();
        assert_eq!(stat(&store, "jci_published"), published, "{kind:?}: it is not prepared any more");
        s.truncate(offset(150)).unwrap();
        put_header(&mut s, 149).unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
        assert_eq!(other.size().unwrap(), offset(150));
        assert!(all_are(&mut other, (2..=6).chain(8..=149), 3).unwrap() && byte(&mut other, 7).unwrap() == Some(4));
        drop((s, other, store));
        let mut s = rig.crash(Policy::Oldest).open().unwrap().session().unwrap();
        assert!(all_are(&mut s, (2..=6).chain(8..=149), 3).unwrap() && byte(&mut s, 7).unwrap() == Some(4));
    }
}

#[test]
fn p1_a_truncation_in_a_transaction_of_a_failed_region_succeeds_and_the_commit_tells() {
    // Failure: as above, with the region failed by another connection meanwhile.
    let rig = Rig::new(MediumKind::File);
    let store = rig.open().unwrap();
    let (mut s, mut other) = (store.session().unwrap(), store.session().unwrap());
    commit(&mut s, 8, 2..=8, 1, nvlite_engine::Durability::Process).unwrap();
    prepare(&mut s, 4, 2..=4, 2).unwrap();
    rig.world.fail(Some(Fault { after: 0, errno: libc::EIO, times: 1 }));
    assert!(matches!(other.checkpoint(), Err(Error::Failed { .. })), "it flushes, and that fails");
    rig.world.fail(None);
    s.truncate(offset(5)).unwrap();
    assert!(matches!(s.commit(Full), Err(Error::Failed { .. })));
    drop((s, other, store));
    let after = rig.crash(Policy::Newest).open().unwrap();
    let mut s = after.session().unwrap();
    let got = byte(&mut s, 2).unwrap().unwrap();
    let pages = if got == 2 { 2..=4 } else { 2..=8 };
    assert!(all_are(&mut s, pages, got).unwrap(), "one of both whole, {got}");
}

/// The size that page 1 says.
fn size_in_header(s: &mut Session) -> Option<u32> {
    let mut header = [0; mark::HEADER];
    s.read(0, &mut header).unwrap();
    mark::pages(&header)
}

#[test]
fn p1_the_size_is_what_page_one_says() {
    // Failure: the last xTruncate or the highest write decides, and a file that SQLite believes shorter keeps its tail.
    for kind in BOTH {
        let store = Rig::new(kind).open().unwrap();
        let mut s = store.session().unwrap();
        for (size, written) in [(8, 8), (6, 8), (8, 3), (4, 4)] {
            commit(&mut s, size, 2..=written, 1, Full).unwrap();
            s.begin_read().unwrap();
            assert_eq!(s.size().unwrap(), offset(size + 1), "{kind:?}");
            assert_eq!(size_in_header(&mut s), Some(size), "{kind:?}");
            s.end_read();
        }
    }
}

/// Changes one byte of each page but the first, so that the record holds differences however many pages there are, and
/// prepares.
fn touch(s: &mut Session, size: u32, pages: std::ops::RangeInclusive<u32>, n: u8) {
    s.begin_write().unwrap();
    put_header(s, size).unwrap();
    pages.for_each(|page| s.write(offset(page) + 500, &[n]).unwrap());
    s.prepare().unwrap();
}

fn commit_touch(s: &mut Session, size: u32, pages: std::ops::RangeInclusive<u32>, n: u8) {
    touch(s, size, pages, n);
    s.commit(Full).unwrap();
    s.end_write();
    s.end_read();
}

/// The byte that [`touch`] has written to all of the pages; `None` if it is not the same in each.
fn touched(s: &mut Session, pages: std::ops::RangeInclusive<u32>) -> Option<u8> {
    let mut read = |page| {
        let mut got = [0];
        s.read(offset(page) + 500, &mut got).unwrap();
        got[0]
    };
    let first = read(*pages.start());
    pages.into_iter().all(|page| read(page) == first).then_some(first)
}

/// A database of so many pages, all in the fast tier.
fn hot(s: &mut Session, size: u32) {
    for first in (2..=size).step_by(8) {
        commit(s, (first + 7).min(size), first..=(first + 7).min(size), 0, Full).unwrap();
    }
    commit_touch(s, size, 2..=size, 1);
}

#[test]
fn p2_in_place_behind_the_gate_up_to_thirty_two_pages_and_copied_beyond() {
    // Failure: a commit of any size closes the gate, and readers that arrive wait for as long as it stores.
    let store = Rig::with_budget(MediumKind::Dax, 1 << 20).open().unwrap();
    let (mut s, reader) = (store.session().unwrap(), store.session().unwrap());
    let size = 4 * GATE_PAGES;
    hot(&mut s, size);
    let delta = |s: &mut Session, pages: u32, n: u8| {
        let figures = || ["pages_in_place", "pages_copied"].map(|name| stat(&store, name));
        let before = figures();
        // page 1 is one of them
        commit_touch(s, size, 2..=pages, n);
        let after = figures();
        [after[0] - before[0], after[1] - before[1]].map(|n| n as u32)
    };
    assert_eq!(delta(&mut s, GATE_PAGES, 2), [GATE_PAGES, 0]);
    assert_eq!(delta(&mut s, GATE_PAGES + 1, 3), [0, GATE_PAGES + 1], "a reader may arrive at any moment");
    assert_eq!(delta(&mut s, 3 * GATE_PAGES, 4), [0, 3 * GATE_PAGES]);
    drop(reader);
    assert_eq!(delta(&mut s, 3 * GATE_PAGES, 5), [3 * GATE_PAGES, 0], "alone, nobody waits");
}

#[test]
fn p2_a_pinned_reader_keeps_its_snapshot_under_commits_larger_than_the_gate() {
    // Failure: what is copied on write frees or overwrites what the pin sees, page by page.
    for kind in BOTH {
        let rig = Rig::with_budget(kind, 1 << 20);
        let store = rig.open().unwrap();
        let size = 3 * GATE_PAGES;
        let (mut s, mut old) = (store.session().unwrap(), store.session().unwrap());
        hot(&mut s, size);
        old.begin_read().unwrap();
        for n in 2..=40 {
            let mut young = store.session().unwrap();
            young.begin_read().unwrap();
            commit_touch(&mut s, size, 2..=size, n);
            assert_eq!(touched(&mut old, 2..=size), Some(1), "{kind:?}: commit {n} under the oldest");
            assert_eq!(touched(&mut young, 2..=size), Some(n - 1), "{kind:?}: commit {n} under the youngest");
        }
        old.end_read();
        assert_eq!(touched(&mut old, 2..=size), Some(40), "{kind:?}");
        assert_eq!(touched(&mut rig.crash(Policy::Oldest).open().unwrap().session().unwrap(), 2..=size), Some(40));
    }
}

/// Commits while a reader arrives in front of and behind every store.
fn arrivals_in_the_middle() {
    let size = 2 * GATE_PAGES;
    let rig = Rig::with_budget(MediumKind::Dax, 1 << 20);
    let arriving = Arc::new(Mutex::new((None::<Session>, 0_u8, 0)));
    let its = arriving.clone();
    let arrive = move || {
        let mut guard = match its.try_lock() {
            Err(TryLockError::WouldBlock) => return, // the reader's own
            other => other.unwrap(),
        };
        let (Some(reader), want, arrivals) = &mut *guard else { return };
        reader.begin_read().unwrap();
        let seen = touched(reader, 2..=size);
        // behind the last store of the commit it may be visible
        assert!(seen == Some(*want) || seen == Some(*want + 1), "arrival {arrivals}: part of the commit after {want}");
        reader.end_read();
        *arrivals += u32::from(seen == Some(*want));
    };
    let mut parts = rig.parts(
        nvlite_engine::shm::Segment::private(nvlite_engine::mapping_len(1 << 20, MediumKind::Dax)).unwrap(),
        nvlite_engine::shm::Liveness::solo(),
    );
    parts.region = hooked::memory(parts.region, arrive);
    let store = Store::assemble(parts).unwrap();
    let mut s = store.session().unwrap();
    hot(&mut s, size);
    for n in 2..=6 {
        touch(&mut s, size, 2..=size, n);
        *arriving.lock().unwrap() = (Some(store.session().unwrap()), n - 1, 0);
        s.commit(Full).unwrap();
        let (reader, _, arrivals) = std::mem::take(&mut *arriving.lock().unwrap());
        s.end_write();
        s.end_read();
        assert!(arrivals > size, "{arrivals} arrivals");
        assert_eq!(touched(&mut reader.unwrap(), 2..=size), Some(n));
    }
}

#[test]
fn p2_a_reader_that_arrives_in_the_middle_of_a_large_commit_sees_nothing_of_it() {
    // Failure: a commit too large for the gate stores in place where no pin is, and a reader that pins between two of its stores
    // reads page A new and page B old. Here a reader arrives in front of and behind every store.
    // In one thread, which waits for itself if the gate is closed.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        arrivals_in_the_middle();
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(120)).expect("an end: no failure, and no gate closed over so many pages");
}

/// Pages of memory that this thread has met for the first time.
fn faults() -> i64 {
    // SAFETY: a plain system call that fills in what it is given.
    unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_minflt
    }
}

#[test]
fn p2_no_commit_meets_a_new_block_for_the_first_time() {
    // Failure: a copy goes to a block that was never stored to, and behind the closed gate the kernel first makes its
    // page writable; on `dax` that waits for the journal of the file system, and every reader that comes waits with it.
    let (rig, scratch) = (Rig::with_budget(MediumKind::Ram, 4 << 20), System::Ram.scratch());
    let mut parts = rig.parts(Segment::private(mapping_len(rig.budget(), rig.kind())).unwrap(), Liveness::solo());
    let len = region_len(rig.budget(), rig.kind());
    parts.region = Region::Pmem(Arc::new(Mapped::create(&scratch.path("region"), len, rig.kind()).unwrap()));
    let store = Store::assemble(parts).unwrap();
    let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
    for first in (2..=201).step_by(20) {
        commit(&mut s, 201, first..first + 20, 1, Full).unwrap();
    }
    reader.begin_read().unwrap();
    let copied = stat(&store, "pages_copied");
    s.begin_write().unwrap();
    put_header(&mut s, 201).unwrap();
    (2..=201).for_each(|page| s.write(offset(page) + 8, &[7; 8]).unwrap());
    s.prepare().unwrap();
    let before = faults();
    s.commit(Full).unwrap();
    let met = faults() - before;
    assert_eq!(stat(&store, "pages_copied") - copied, 201, "the reader needs them");
    // 201 blocks are 50 pages of memory; the log has some, too
    assert!(met < 20, "{met} pages were met for the first time");
}
