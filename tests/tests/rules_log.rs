//! Rules of the log, one short scenario each, on simulated media: what a crash leaves is chosen, not raced for.
//!
//! A crash in the middle of recovery, in every way: `crash.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{
    Disk, Durability::Full, Durability::Process, Error, MediumKind, MediumKind::Dax, MediumKind::File, Site, Store,
    mapping_len,
};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::rules::{
    PAGE, Rig, all_are, await_published, byte, commit, content, offset, prepare, put_header, stat, until_granted,
};
use nvlite_tests::sim::{Fault, Policy};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const BOTH: [MediumKind; 2] = [Dax, File];

/// What a crash leaves after which the newest record, destroyed, counts as torn: on `dax` nothing says that it was applied.
fn torn(kind: MediumKind) -> Policy {
    if kind == Dax { Policy::Oldest } else { Policy::Newest }
}

#[test]
fn p3_a_page_that_is_grown_again_has_nothing_of_its_old_home() {
    // Failure: the new page is logged as a difference against the old content, and redo finds that at its home.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 8, 2..=8, 7, Full).unwrap();
        store.checkpoint().unwrap();
        s.begin_write().unwrap();
        put_header(&mut s, 2).unwrap();
        s.truncate(offset(3)).unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
        store.checkpoint().unwrap();
        s.begin_write().unwrap();
        put_header(&mut s, 8).unwrap();
        s.write(offset(4) + 100, b"new").unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
        drop((s, store));
        for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
            let mut s = after.open().unwrap().session().unwrap();
            let mut got = vec![1; offset(7) as usize];
            s.begin_read().unwrap();
            assert_eq!(s.read(offset(3), &mut got).unwrap(), offset(7) as usize);
            assert_eq!(&got[1024 + 100..1024 + 103], b"new");
            got[1024 + 100..1024 + 103].fill(0);
            assert!(got.iter().all(|&b| b == 0), "{kind:?}: the old content is back");
        }
    }
}

#[test]
fn p4_a_commit_with_a_missing_part_is_a_gap() {
    // Failure: half of a torn commit is redone.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 8, 2..=8, 1, Full).unwrap();
        commit(&mut s, 8, 2..=8, 2, Process).unwrap();
        drop((s, store));
        for missing in 0..3 {
            let after = rig.crash(torn(kind));
            assert_eq!(after.destroy(|jci, part| jci == 2 && part == missing).unwrap(), 1);
            let mut s = after.open().unwrap().session().unwrap();
            assert!(all_are(&mut s, 2..=8, 1).unwrap(), "{kind:?}: without part {missing}");
        }
        let mut s = rig.crash(Policy::Newest).open().unwrap().session().unwrap();
        assert!(all_are(&mut s, 2..=8, 2).unwrap(), "{kind:?}: with all its parts it counts");
    }
}

#[test]
fn h2_a_retired_record_is_not_redone() {
    // Failure: the valid record of an older commit, found after a crash, brings the page's old content back.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        (1..=3).for_each(|n| commit(&mut s, 3, 2..=3, n, Full).unwrap());
        store.checkpoint().unwrap();
        drop((s, store));
        for policy in [Policy::Newest, Policy::Oldest] {
            let after = rig.crash(policy);
            // a later commit has taken the slots of the newest, and was torn
            assert!(after.destroy(|jci, _| jci >= 2).unwrap() >= 2);
            let mut s = after.open().unwrap().session().unwrap();
            assert!(all_are(&mut s, 2..=3, 3).unwrap(), "{kind:?}: an older record was redone");
        }
    }
}

#[test]
fn h3_a_gap_at_or_below_what_was_durable_is_corruption_that_names_it() {
    // Failure: an acknowledged commit is lost, and the store serves the state before it as if nothing had happened.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        (1..=4).for_each(|n| commit(&mut s, 3, 2..=3, n, Full).unwrap());
        drop((s, store));
        for gone in 1..=3 {
            let after = rig.crash(Policy::Newest);
            after.destroy(|jci, _| jci == gone).unwrap();
            match after.open().map(|_| ()) {
                Err(Error::Corrupt { detail, .. }) => assert!(detail.contains(&format!("commit {gone} ")), "{detail}"),
                other => panic!("{kind:?}: without commit {gone}: {other:?}"),
            }
        }
        // nothing later attests the last one: the log ends before it; the header of 4 that attests 3 is gone with it
        let after = rig.crash(torn(kind));
        after.destroy(|jci, _| jci == 4).unwrap();
        assert!(all_are(&mut after.open().unwrap().session().unwrap(), 2..=3, 3).unwrap());
    }
    // on `dax` that it was stored in place attests it
    let rig = Rig::new(Dax);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    (1..=4).for_each(|n| commit(&mut s, 3, 2..=3, n, Full).unwrap());
    drop((s, store));
    let after = rig.crash(Policy::Newest);
    after.destroy(|jci, _| jci == 4).unwrap();
    match after.open().map(|_| ()) {
        Err(Error::Corrupt { detail, .. }) => assert!(detail.contains("commit 4 "), "{detail}"),
        other => panic!("half of commit 4 stays: {other:?}"),
    }
    // on `file` the header alone attests, without any later record that is complete
    let rig = Rig::new(File);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    (1..=2).for_each(|n| commit(&mut s, 8, 2..=8, n, Full).unwrap());
    drop((s, store));
    let after = rig.crash(Policy::Newest);
    after.destroy(|jci, part| jci == 1 || part == 0).unwrap();
    assert!(matches!(after.open().map(|_| ()), Err(Error::Corrupt { .. })), "the rest of commit 2 attests commit 1");
}

#[test]
fn a_header_that_says_nothing_is_corruption_and_no_empty_database() {
    // Failure: the base's header is damaged while nobody has the database open. The next open takes it for empty and drops
    // what it has of its pages, and the next close cuts the base file to nothing.
    let rig = Rig::new(File);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    commit(&mut s, 8, 2..=8, 1, Full).unwrap();
    store.checkpoint().unwrap();
    drop((s, store));
    let after = rig.crash(Policy::Newest);
    let (base, mut counter) = (after.base(), [0; 4]);
    base.read_at(92, &mut counter).unwrap();
    base.write_at(92, &[9; 4]).unwrap();
    match after.open().map(|store| store.finish()) {
        Err(Error::Corrupt { what, .. }) => assert_eq!(what, "database header"),
        other => panic!("{other:?}, and a base of {} bytes", base.len().unwrap()),
    }
    base.write_at(92, &counter).unwrap();
    let mut s = after.open().unwrap().session().unwrap();
    assert!(all_are(&mut s, 2..=8, 1).unwrap(), "nothing was harmed");
}

#[test]
fn h6_a_large_transaction_is_whole_or_absent() {
    // Failure: the record is durable before the shadow blocks that it names, or they replace pages before it is.
    for kind in BOTH {
        let rig = Rig::with_budget(kind, 1 << 20);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 900, 2..=900, 1, Full).unwrap();
        store.checkpoint().unwrap();
        let before = stat(&store, "shadow_blocks");
        prepare(&mut s, 900, 2..=900, 2).unwrap();
        assert!(stat(&store, "shadow_blocks") > before, "{kind:?}: it is large enough");
        let prepared = [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)];
        s.commit(Full).unwrap();
        let committed = [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)];
        for (images, want) in [(prepared, 1), (committed, 2)] {
            for after in images {
                let mut s = after.open().unwrap().session().unwrap();
                assert!(all_are(&mut s, 2..=900, want).unwrap(), "{kind:?}: expected {want}");
            }
        }
    }
}

#[test]
fn h6_a_transaction_larger_than_the_fast_tier_commits() {
    // Failure: the write set does not fit the blocks that there are, and the transaction fails or loses pages.
    for kind in BOTH {
        let pages = 3 << 10;
        let rig = Rig::with_budget(kind, 1 << 20);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        for n in 1..=2 {
            commit(&mut s, pages, 2..=pages, n, Full).unwrap();
            assert!(all_are(&mut s, 2..=pages, n).unwrap(), "{kind:?}");
        }
        for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
            assert!(all_are(&mut after.open().unwrap().session().unwrap(), 2..=pages, 2).unwrap(), "{kind:?}");
        }
    }
}

#[test]
fn h8_a_second_recovery_changes_nothing_and_a_torn_first_one_is_repeated() {
    // Failure: recovery frees or attests something before all that it redid is durable.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        (1..=5).for_each(|n| commit(&mut s, 6, 2..=6, n, Full).unwrap());
        drop((s, store));
        let first = rig.crash(Policy::Oldest);
        let store = first.open().unwrap();
        let jci = stat(&store, "jci_published");
        drop(store);
        let again = first.crash(Policy::Oldest).open().unwrap();
        assert_eq!((stat(&again, "jci_published"), jci), (5, 5));
        assert!(all_are(&mut again.session().unwrap(), 2..=6, 5).unwrap(), "{kind:?}");
        for events in 0..first.world.events() {
            for policy in [Policy::Oldest, Policy::Newest, Policy::Events(events as u64)] {
                let torn = first.from_image(first.world.crash_at(events), policy);
                let mut s = torn.open().unwrap().session().unwrap();
                assert!(all_are(&mut s, 2..=6, 5).unwrap(), "{kind:?}: recovery torn after {events} events");
            }
        }
    }
}

#[test]
fn p17_h1_what_is_retired_is_durable_in_its_blocks() {
    // Failure: the low-water mark passes a commit whose stores in place are still in a cache, and its record is reused.
    let rig = Rig::new(Dax);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    (1..=3).for_each(|n| commit(&mut s, 4, 2..=4, n, Full).unwrap());
    assert!(stat(&store, "pages_in_place") > 0, "the blocks were stored to in place");
    store.checkpoint().unwrap();
    drop((s, store));
    let content = |deleted: Option<Site>| {
        let after = rig.power_cut_without(deleted);
        after.destroy(|_, _| true).unwrap();
        let mut s = after.open()?.session()?;
        (2..=4).map(|page| byte(&mut s, page)).collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(content(None).unwrap(), [Some(3); 3]);
    let lost = content(Some(Site::RetireLines));
    assert!(!lost.is_ok_and(|pages| pages == [Some(3); 3]), "this test would notice a lost flush");
}

#[test]
fn p17_a_page_that_is_at_home_too_is_redone_over_its_newest_block() {
    // Failure: a checkpoint writes the page home; the next store in place makes its block's entry as young as that commit, which
    // recovery does not believe; so it believes that of an older version, and what lies between is lost.
    let rig = Rig::new(Dax);
    let store = rig.open().unwrap();
    let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    let change = |s: &mut nvlite_engine::Session, at: u64, bytes: &[u8]| {
        s.begin_write().unwrap();
        put_header(s, 4).unwrap();
        s.write(offset(2) + at, bytes).unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
    };
    reader.begin_read().unwrap();
    change(&mut s, 100, b"second");
    store.checkpoint().unwrap();
    let in_place = stat(&store, "pages_in_place");
    change(&mut s, 200, b"third");
    assert!(stat(&store, "pages_in_place") > in_place, "the reader sees another version");
    for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
        let mut s = after.open().unwrap().session().unwrap();
        let mut got = vec![0; 300];
        s.read(offset(2), &mut got).unwrap();
        assert_eq!((&got[100..106], &got[200..205]), (&b"second"[..], &b"third"[..]));
    }
}

#[test]
fn p16_a_checkpoint_brings_the_base_up_to_date() {
    // Failure: on `dax` and `ram` pages are durable in their blocks, and a checkpoint leaves the base file as it was.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        assert_eq!(store.checkpoint().unwrap(), Default::default(), "{kind:?}: of an empty database, too");
        let (mut s, mut old) = (store.session().unwrap(), store.session().unwrap());
        commit(&mut s, 8, 2..=8, 1, Full).unwrap();
        old.begin_read().unwrap();
        commit(&mut s, 8, 2..=5, 2, Full).unwrap();
        let (durable, home) = store.checkpoint().unwrap();
        assert_eq!((durable.0, home.0), (2, 2), "{kind:?}");
        assert_eq!(stat(&store, "pages_hot_dirty"), 0, "{kind:?}: all is at home");
        assert!(all_are(&mut old, 2..=8, 1).unwrap(), "{kind:?}: an older reader is not disturbed");
        let written = stat(&store, "homes_written");
        store.checkpoint().unwrap();
        assert_eq!(stat(&store, "homes_written"), written, "{kind:?}: nothing is written twice");
        // the base is the place of all pages if nothing else is left of the region but its superblock
        let base = rig.base();
        for page in 2..=8 {
            let mut got = vec![0; PAGE];
            base.read_at(offset(page), &mut got).unwrap();
            assert!(got == content(page, if page <= 5 { 2 } else { 1 }), "{kind:?}: page {page}");
        }
    }
}

#[test]
fn p18_a_failed_write_or_sync_fails_every_connection_and_a_reopen_recovers() {
    // Failure: the write is tried again after an error that dropped the dirty pages, and a lost commit is acknowledged.
    for how in [Full, Process] {
        for after in 0..3 {
            let rig = Rig::new(File);
            let store = rig.open().unwrap();
            let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
            (1..=3).for_each(|n| commit(&mut s, 4, 2..=4, n, Full).unwrap());
            reader.begin_read().unwrap();
            rig.world.fail(Some(Fault { after, errno: 5, times: 1 }));
            let result = commit(&mut s, 4, 2..=4, 4, how);
            rig.world.fail(None);
            let failed = result.is_err();
            assert!(failed || after > 0, "the first operation is the batch's write");
            if failed {
                assert!(matches!(result, Err(Error::Failed { .. })), "{result:?}");
                assert!(matches!(byte(&mut reader, 2), Err(Error::Failed { .. })));
                reader.end_read();
                assert!(matches!(reader.begin_read(), Err(Error::Failed { .. })));
                assert!(matches!(commit(&mut s, 4, 2..=4, 5, how), Err(Error::Failed { .. })));
                assert!(matches!(store.session().map(|_| ()), Err(Error::Failed { .. })));
                assert!(!store.finish().unwrap(), "nothing is written home");
            }
            drop((s, reader, store));
            for policy in [Policy::Newest, Policy::Oldest] {
                let mut s = rig.crash(policy).open().unwrap().session().unwrap();
                let got = byte(&mut s, 2).unwrap();
                let may = if failed || how == Process { vec![Some(3), Some(4)] } else { vec![Some(4)] };
                assert!(may.contains(&got), "{how:?} after {after}: {got:?}");
                assert!(all_are(&mut s, 2..=4, got.unwrap()).unwrap());
            }
        }
    }
}

/// An error that takes its time to be told.
#[derive(Debug)]
struct Slow;

impl std::fmt::Display for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::thread::sleep(Duration::from_millis(300));
        f.write_str("lost")
    }
}

impl std::error::Error for Slow {}

#[test]
fn p18_nobody_tries_a_failed_sync_again() {
    // Failure: the lock of the flush is given back before it is said that the region has failed. One that waits for the next
    // batch takes it and syncs again; the kernel has told its error already, and the lost commit is acknowledged.
    let rig = Rig::new(File);
    let (fails, (tell, told)) = (Arc::new(AtomicBool::new(false)), mpsc::channel::<()>());
    let (its, told) = (fails.clone(), Mutex::new(told));
    let lost = move |op| {
        if op != Op::Sync(Site::Batch) || !its.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        told.lock().unwrap().recv().unwrap();
        Err(Error::io(Path::new("log"), "sync", io::Error::other(Slow)))
    };
    let store = rig.open_with(|disk| hooked::disk(disk, lost)).unwrap();
    let [mut a, mut b] = [(); 2].map(|()| store.session().unwrap());
    commit(&mut a, 2, [2], 1, Full).unwrap();
    fails.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| commit(&mut a, 2, [2], 2, Full));
        await_published(&store, 2);
        let second = scope.spawn(|| until_granted(|| commit(&mut b, 2, [2], 3, Full)));
        await_published(&store, 3);
        tell.send(()).unwrap();
        assert!(matches!(first.join().unwrap(), Err(Error::Failed { .. })));
        let second = second.join().unwrap();
        assert!(matches!(second, Err(Error::Failed { .. })), "it was in the batch after a lost one: {second:?}");
    });
}

#[test]
fn p18_a_superblock_that_could_not_be_written_is_not_written_again() {
    // Failure: of its two copies the one that was being written is in doubt, and the next attempt is made on the other.
    let rig = Rig::new(File);
    let fails = Arc::new(AtomicBool::new(false));
    let its = fails.clone();
    let lost = move |op| match op {
        Op::Sync(Site::SuperblockSync) if its.swap(false, Ordering::SeqCst) => {
            Err(Error::io(Path::new("region"), "sync", io::Error::other("lost")))
        }
        _ => Ok(()),
    };
    let store = rig.open_with(|disk| hooked::disk(disk, lost)).unwrap();
    let mut s = store.session().unwrap();
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    fails.store(true, Ordering::SeqCst);
    assert!(s.checkpoint().is_err());
    for _ in 0..2 {
        assert!(matches!(s.checkpoint(), Err(Error::Failed { .. })), "it is tried again");
        assert!(matches!(commit(&mut s, 4, 2..=4, 2, Full), Err(Error::Failed { .. })));
    }
    let mut s = rig.crash(Policy::Oldest).open().unwrap().session().unwrap();
    assert!(all_are(&mut s, 2..=4, 1).unwrap());
}

#[test]
fn p19_every_recovery_begins_another_incarnation() {
    // Failure: two histories share incarnation and change counter, and a cache of the one is trusted in the other.
    for kind in BOTH {
        let mut rig = Rig::new(kind);
        let mut seen = 0;
        for n in 1..=4 {
            let store = rig.open().unwrap();
            let incarnation = stat(&store, "incarnation");
            assert!(incarnation > seen, "{kind:?}: {incarnation} after {seen}");
            seen = incarnation;
            let mut s = store.session().unwrap();
            commit(&mut s, 2, [2], n, Full).unwrap();
            let mut answer = [0; 16];
            s.read(24, &mut answer).unwrap();
            assert_ne!(answer, [0xff; 16], "a new connection has no cache to drop");
            drop((s, store));
            rig = rig.crash(Policy::Oldest);
        }
    }
}

#[test]
fn p19_a_connection_that_meets_another_history_is_told_once() {
    // Failure: the change counters of two histories agree, and SQLite trusts a cache that it filled in the other one.
    for kind in BOTH {
        let store = Rig::new(kind).open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 2, [2], 1, Full).unwrap();
        let told = |s: &mut nvlite_engine::Session, at: u64, n: usize| {
            let mut bytes = vec![0; n];
            assert_eq!(s.read(at, &mut bytes).unwrap(), n);
            bytes == vec![0xff; n]
        };
        assert!(!told(&mut s, 24, 16), "it has seen no other");
        s.assume_seen(nvlite_engine::base::Incarnation(0));
        s.begin_read().unwrap();
        for (at, n) in [(0, 100), (24, 15), (24, 4), (23, 16), (offset(2), 16)] {
            assert!(!told(&mut s, at, n), "{n} bytes at {at} are not the change counter as SQLite reads it");
        }
        assert!(told(&mut s, 24, 16), "{kind:?}: the first read of the change counter");
        assert!(!told(&mut s, 24, 16), "{kind:?}: once");
        assert!(!told(&mut store.session().unwrap(), 24, 16), "a new connection has no cache to drop");
    }
}

#[test]
fn a_header_of_another_page_size_is_refused() {
    // Failure: it counts in its pages and is taken to count in ours, and what lies above is dropped.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 9, 2..=9, 7, Full).unwrap();
        s.begin_write().unwrap();
        put_header(&mut s, 5).unwrap();
        s.write(16, &(2 * PAGE as u16).to_be_bytes()).unwrap();
        let said = s.prepare().unwrap_err().to_string();
        assert!(said.contains("1024") && said.contains("2048"), "{said}");
        s.end_write();
        s.end_read();
        assert!(all_are(&mut s, 2..=9, 7).unwrap(), "{kind:?}");
        commit(&mut s, 9, 2..=9, 8, Full).unwrap();
        assert!(all_are(&mut s, 2..=9, 8).unwrap(), "{kind:?}");
    }
}

#[test]
fn a_base_that_was_cut_is_not_made_longer_by_recovery() {
    // Failure: what the log adds is written behind the cut, and what was cut off reads as zeros, as if it were there.
    let rig = Rig::new(File);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    commit(&mut s, 120, 2..=120, 7, Full).unwrap();
    store.checkpoint().unwrap();
    commit(&mut s, 125, 121..=125, 8, Full).unwrap();
    // more than recovery holds in memory
    (0..3).for_each(|i| commit(&mut s, 125, 20 * i + 2..=20 * i + 21, 9, Full).unwrap());
    drop((s, store));
    let whole = rig.crash(Policy::Newest);
    assert!(all_are(&mut whole.open().unwrap().session().unwrap(), 2..=61, 9).unwrap());
    let cut = rig.crash(Policy::Newest);
    cut.base().set_len(offset(100)).unwrap();
    for _ in 0..2 {
        let said = cut.open().err().unwrap().to_string();
        assert!(said.contains("page 100") && said.contains("was cut"), "{said}");
    }
}

#[test]
fn h8_recovery_holds_no_more_pages_in_memory_than_a_quarter_of_the_fast_tier() {
    // Failure: a log of small changes to many pages is redone in memory, all of them at once: many times what the log takes.
    // Or what is written home in between is taken for done, and a recovery that follows a crash redoes only what comes after.
    const PAGES: u32 = 120;
    let rig = Rig::new(File);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    commit(&mut s, PAGES, 2..=PAGES, 1, Full).unwrap();
    store.checkpoint().unwrap();
    for n in 2..=4 {
        s.begin_write().unwrap();
        put_header(&mut s, PAGES).unwrap();
        (2..=PAGES).for_each(|page| s.write(offset(page) + u64::from(n), &[n; 3]).unwrap());
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
    }
    // the writes of homes after which the recovery is cut off
    for until in [0, 1, 50, 150, 300, usize::MAX] {
        let rig = rig.crash(Policy::Newest);
        // pages read since a write, the most of them, and writes
        let counts = Arc::new(Mutex::new((0, 0, 0)));
        let its = counts.clone();
        let hook = move |op| {
            let (held, most, writes) = &mut *its.lock().unwrap();
            match op {
                Op::Read => *held += 1,
                _ if *writes >= until => return Err(Error::Busy("it has crashed")),
                _ => (*held, *writes) = (0, *writes + 1),
            }
            *most = (*most).max(*held);
            Ok(())
        };
        let mut parts = rig.parts(Segment::private(mapping_len(rig.budget(), File)).unwrap(), Liveness::solo());
        parts.base = hooked::base(parts.base, hook);
        let recovered = Store::assemble(parts);
        assert_eq!(recovered.is_ok(), until == usize::MAX, "{until} writes");
        let most: u64 = counts.lock().unwrap().1;
        assert!(most * PAGE as u64 <= rig.budget() / 4 + 4 * PAGE as u64, "{most} pages at once");
        drop(recovered);
        for policy in [Policy::Newest, Policy::Oldest, Policy::Units(until as u64)] {
            let mut s = rig.crash(policy).open().unwrap().session().unwrap();
            for page in 2..=PAGES {
                let mut want = content(page, 1);
                (2..=4).for_each(|n| want[n..n + 3].fill(n as u8));
                let mut got = vec![0; PAGE];
                s.read(offset(page), &mut got).unwrap();
                assert!(got == want, "{until} writes: page {page}");
            }
        }
    }
}

#[test]
fn h8_an_entry_is_forgotten_when_the_home_that_replaces_it_is_durable() {
    // Failure: recovery is cut off after it forgot where a page was, and before that is at home. The next one redoes an older
    // difference over a home that the page never had.
    const PAGES: u32 = 900;
    let rig = Rig::with_budget(Dax, 1 << 20);
    let store = rig.open().unwrap();
    let mut s = store.session().unwrap();
    for n in 1.. {
        commit(&mut s, 20, 2..=20, n, Full).unwrap();
        if stat(&store, "jci_low_water") > 0 {
            break;
        }
    }
    s.begin_write().unwrap();
    put_header(&mut s, 20).unwrap();
    s.write(offset(19) + 7, b"difference").unwrap();
    s.prepare().unwrap();
    s.commit(Full).unwrap();
    s.end_write();
    s.end_read();
    // the last ones are left no room but in the cold file
    commit(&mut s, PAGES, (21..=PAGES).chain(2..=20), 200, Full).unwrap();
    drop((s, store));
    let first = rig.crash(Policy::Newest);
    drop(first.open().unwrap());
    let events = first.world.events();
    let forgotten = first.world.positions(Site::RecoverHomeward);
    // before the first and after the last of them: of pages that the base had, and of such as are behind its end
    for at in [forgotten[0], forgotten.last().unwrap() + 1, events] {
        for policy in [Policy::Newest, Policy::Oldest, Policy::Units(at as u64)] {
            let mut s = first.from_image(first.world.crash_at(at), policy).open().unwrap().session().unwrap();
            assert!(all_are(&mut s, 2..=PAGES, 200).unwrap(), "cut off after {at} events of {events}");
        }
    }
}
