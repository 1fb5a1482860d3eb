//! Rules of what is done for the dead: a process that dies at each point of a commit, in front of or behind a store, flush or
//! fence, and another one that lives and goes on.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability::Full, Error, MediumKind, Region, Session, Site, Store};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::mortal::Mortal;
use nvlite_tests::processes::Processes;
use nvlite_tests::rules::{Rig, all_are, byte, commit, offset, put_header, stat};
use nvlite_tests::sim::Policy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A machine with commits 1 to 3 on it, on which a process died at point `n` of commit 4. The other process,
/// and whether one had to die.
fn dies_in_commit_4(n: u64) -> (Rig, Processes, Arc<Store>, bool) {
    let before = |byte, _: &mut Session, living: &Arc<Store>| {
        if byte == 4 {
            living.checkpoint().unwrap(); // what they stored is flushed, and need not be again
        }
    };
    dies_in(n, before, |s| commit(s, 4, 2..=4, 4, Full).unwrap())
}

/// As [`dies_in_commit_4`], of which `last` does the work. `before` is called before each commit, with its number, the
/// connection that makes it, and the process that lives.
fn dies_in(
    n: u64,
    mut before: impl FnMut(u8, &mut Session, &Arc<Store>),
    last: impl FnOnce(&mut Session) + Send + 'static,
) -> (Rig, Processes, Arc<Store>, bool) {
    let rig = Rig::new(MediumKind::Dax);
    let processes = Processes::new(&rig).unwrap();
    let living = processes.start(1, |region| region).unwrap();
    let (dying, mortal) = processes.start_mortal(2).unwrap();
    let mut s = dying.session().unwrap();
    for byte in 1..=3 {
        before(byte, &mut s, &living);
        commit(&mut s, 4, 2..=4, byte, Full).unwrap();
    }
    before(4, &mut s, &living);
    mortal.dies_after(n);
    let died = dies(&mortal, s, last);
    processes.kill(2);
    (rig, processes, living, died)
}

/// Whether who does `work` dies in it.
fn dies(mortal: &Mortal, mut s: Session, work: impl FnOnce(&mut Session) + Send + 'static) -> bool {
    mortal.dies_in(move || {
        work(&mut s);
        s
    })
}

#[test]
fn p17_a_dead_owners_commit_is_applied_before_it_is_retired() {
    // Failure: the record is whole, its owner died before it had stored all of it in place, and the retirer attests the
    // commit and gives its slots back: half of it is gone with the next power cut.
    let (mut seen, mut n) = ([0, 0], 0);
    loop {
        let (rig, _processes, store, died) = dies_in_commit_4(n);
        let mut s = store.session().unwrap();
        store.checkpoint().unwrap();
        let got = byte(&mut s, 2).unwrap().unwrap();
        assert!(got == 3 || got == 4, "point {n}: byte {got}");
        assert!(all_are(&mut s, 2..=4, got).unwrap(), "point {n}: half of commit 4");
        assert_eq!(stat(&store, "jci_low_water"), u64::from(got), "point {n}: it was retired");
        assert_eq!(stat(&store, "repairs"), u64::from(died), "point {n}");
        // what is retired needs no record
        let after = rig.crash(Policy::Oldest);
        after.destroy(|_, _| true).unwrap();
        let mut t = after.open().unwrap().session().unwrap();
        assert!(all_are(&mut t, 2..=4, got).unwrap(), "point {n}: byte {got} was retired, and is gone");
        // the lock, the gate and the blocks are in order
        commit(&mut s, 4, 2..=4, 5, Full).unwrap();
        assert!(all_are(&mut s, 2..=4, 5).unwrap(), "point {n}");
        if !died {
            break;
        }
        seen[usize::from(got == 4)] += 1;
        n += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 3, "{seen:?}: deaths before the record was whole, and after");
}

#[test]
fn p2_a_reader_that_meets_the_gate_of_a_dead_writer_repairs_it() {
    // Failure: the owner of a closed gate died, and every reader waits for it for ever, or reads a half applied commit.
    for n in 0.. {
        let (_rig, _processes, store, died) = dies_in_commit_4(n);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut s = store.session().unwrap();
            s.begin_read().unwrap();
            let got = byte(&mut s, 2).unwrap();
            let _ = tell.send(got.is_some_and(|got| all_are(&mut s, 2..=4, got).unwrap()));
        });
        let whole = told.recv_timeout(Duration::from_secs(10));
        assert_eq!(whole, Ok(true), "point {n}: half of commit 4, or no end");
        if !died {
            return assert!(n > 5, "{n} points");
        }
    }
}

#[test]
fn p2_nobody_helps_a_living_writer() {
    // Failure: who waits at the gate of a writer that is stopped takes it for dead, repairs and opens it; the writer
    // goes on and stores under the readers that came.
    let mut closed = 0;
    for n in 0.. {
        let rig = Rig::new(MediumKind::Dax);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (stopping, mortal) = processes.start_mortal(2).unwrap();
        let mut s = stopping.session().unwrap();
        commit(&mut s, 4, 2..=4, 3, Full).unwrap();
        mortal.dies_after(n);
        let stopped = dies(&mortal, s, |s| commit(s, 4, 2..=4, 4, Full).unwrap());
        if !stopped {
            break;
        }
        let (tell, told) = std::sync::mpsc::channel();
        let its = living.clone();
        std::thread::spawn(move || {
            let mut s = its.session().unwrap();
            s.begin_read().unwrap();
            let got = byte(&mut s, 2).unwrap();
            let _ = tell.send(got.filter(|got| all_are(&mut s, 2..=4, *got).unwrap()));
        });
        // many looks of who waits at the gate
        let served = told.recv_timeout(Duration::from_millis(150));
        assert_eq!(stat(&living, "repairs"), 0, "point {n}: it lives");
        if served.is_err() {
            closed += 1;
            processes.kill(2);
            assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Some(4)), "point {n}: now it is dead");
        } else {
            assert!(matches!(served, Ok(Some(3 | 4))), "point {n}: {served:?}");
        }
    }
    assert!(closed > 3, "{closed} points with the gate closed");
}

#[test]
fn p13_a_commit_that_its_dead_writer_did_not_show_is_shown() {
    // Failure: a writer dies between the two last steps of a commit without the gate: it is published, and not visible. Nothing
    // is pending for who repairs, readers pin the one before, and are told that their snapshot is old, for ever.
    let rig = Rig::new(MediumKind::Dax);
    let processes = Processes::new(&rig).unwrap();
    let (store, dying) = (processes.start(1, |r| r).unwrap(), processes.start(2, |r| r).unwrap());
    let mut s = dying.session().unwrap();
    (1..=3).for_each(|byte| commit(&mut s, 4, 2..=4, byte, Full).unwrap());
    s.begin_write().unwrap();
    processes.unsee(2).unwrap();
    processes.kill(2);
    std::mem::forget((s, dying));
    let mut s = store.session().unwrap();
    assert!(matches!(s.begin_write(), Err(Error::BusySnapshot)), "it pinned what was visible");
    assert_eq!(stat(&store, "repairs"), 1);
    s.end_read();
    s.begin_write().expect("its snapshot is the newest");
    assert!(all_are(&mut s, 2..=4, 3).unwrap());
}

#[test]
fn h3_a_dead_writers_record_that_was_damaged_after_its_stores_is_not_dropped() {
    // Failure: who repairs finds no whole record, takes it for one that was torn, and leaves half of the commit in place.
    let (mut dropped, mut failed) = (0, 0);
    for n in 0.. {
        let (rig, _processes, store, died) = dies_in_commit_4(n);
        if !died {
            break;
        }
        rig.destroy(|jci, _| jci == 4).unwrap();
        let mut s = store.session().unwrap();
        match s.begin_write() {
            Err(Error::Failed { reason, .. }) => {
                assert!(reason.contains("commit 4 "), "point {n}: {reason}");
                let opened = rig.crash(Policy::Newest).open().map(|_| ());
                assert!(matches!(opened, Err(Error::Corrupt { .. })), "point {n}: {opened:?}");
                failed += 1;
            }
            other => {
                other.unwrap();
                assert!(all_are(&mut s, 2..=4, 3).unwrap(), "point {n}: half of commit 4");
                dropped += 1;
            }
        }
    }
    assert!(dropped > 1 && failed > 3, "{dropped} deaths before anything was in place, {failed} after");
}

/// A connection of `store` that reads from now on.
fn reader(store: &Arc<Store>) -> Session {
    let mut reader = store.session().unwrap();
    reader.begin_read().unwrap();
    reader
}

#[test]
fn p13_a_pinned_reader_turned_writer_repairs_and_keeps_its_snapshot() {
    // Failure: who repairs has read since before the dead writer's commit, and takes its own pin for one that moves with the
    // commit, as a writer's does: the versions that it reads are pruned, or stored to.
    for n in 0.. {
        let mut old = None;
        let before = |byte, _: &mut Session, living: &Arc<Store>| match byte {
            3 => old = Some(reader(living)),
            4 => _ = living.checkpoint().unwrap(),
            _ => {}
        };
        let (_rig, _processes, store, died) = dies_in(n, before, |s| commit(s, 4, 2..=4, 4, Full).unwrap());
        let mut s = old.unwrap();
        assert!(matches!(s.begin_write(), Err(Error::BusySnapshot)), "point {n}");
        assert_eq!(stat(&store, "repairs"), u64::from(died), "point {n}");
        assert!(all_are(&mut s, 2..=4, 2).unwrap(), "point {n}: the snapshot changed");
        if !died {
            return assert!(n > 5, "{n} points");
        }
    }
}

#[test]
fn p16_a_dead_writers_cut_takes_no_pages_from_older_readers() {
    // Failure: a dead writer's commit that shrinks the database is finished, but not known to have shrunk it; when room is
    // made, the pages that it cut off go, and a reader from before finds what is at home.
    for n in 0.. {
        let mut old = None;
        let before = |byte, _: &mut Session, living: &Arc<Store>| {
            if byte == 4 {
                old = Some(reader(living));
            }
        };
        let cut = |s: &mut Session| {
            s.begin_write().unwrap();
            put_header(s, 2).unwrap();
            s.truncate(offset(3)).unwrap();
            s.prepare().unwrap();
            s.commit(Full).unwrap();
            s.end_write();
            s.end_read();
        };
        let (_rig, _processes, store, died) = dies_in(n, before, cut);
        let (mut s, mut readers) = (store.session().unwrap(), Vec::new());
        let _ = s.begin_write(); // repairs; its snapshot may not be the newest any more
        s.end_read();
        let size = |s: &mut Session| s.size().unwrap() / offset(2);
        while stat(&store, "cold_blocks") == 0 {
            let pages = size(&mut s) as u32;
            commit(&mut s, pages, [2], readers.len() as u8, Full).unwrap();
            readers.push(reader(&store)); // what it sees is kept, until there is no room
            assert!(readers.len() < 200, "point {n}: room is never made");
        }
        assert!(all_are(&mut old.unwrap(), 2..=4, 3).unwrap(), "point {n}, {} pages", size(&mut s));
        if !died {
            return assert!(n > 5, "{n} points");
        }
    }
}

#[test]
fn p13_a_retirement_whose_owner_died_in_it_gives_its_slots_back() {
    // Failure: who retires on `file` dies in the sync of the superblock that attests it. The pages are home, all that the log
    // has is said to be retired, and is not looked at any more, not even for where it ends: while the log is full, no writer
    // gets on.
    let processes = Processes::new(&Rig::new(MediumKind::File)).unwrap();
    let living = processes.start(1, |region| region).unwrap();
    let (armed, dead) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_armed, died) = (armed.clone(), dead.clone());
    let dies = move |op| {
        if op == Op::Sync(Site::SuperblockSync) && is_armed.load(Ordering::SeqCst) {
            died.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        Ok(())
    };
    let dying = processes.start(2, |region| match region {
        Region::Disk(disk) => Region::Disk(hooked::disk(disk, dies)),
        Region::Pmem(_) => unreachable!("a file"),
    });
    let (mut s, mut own) = (dying.unwrap().session().unwrap(), living.session().unwrap());
    commit(&mut own, 4, 2..=4, 1, Full).unwrap();
    armed.store(true, Ordering::SeqCst);
    std::thread::spawn(move || {
        loop {
            commit(&mut s, 4, 2..=4, 2, Full).unwrap(); // until the log is full
        }
    });
    while !dead.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    processes.kill(2);
    (3..6).for_each(|byte| commit(&mut own, 4, 2..=4, byte, Full).unwrap());
    assert!(all_are(&mut own, 2..=4, 5).unwrap());
}

/// Commits, and keeps what `readers` see of it, until only so many blocks are free: an odd number.
fn leave_blocks(n: u64, s: &mut Session, living: &Arc<Store>, readers: &mut Vec<Session>) {
    let free = || stat(living, "blocks_free");
    while free() > n {
        // two blocks each with that of page 1, or three
        let pages = if free() % 2 == 1 { 2..=2 } else { 2..=3 };
        commit(s, 4, pages, 9, Full).unwrap();
        readers.push(reader(living));
    }
    assert_eq!(free(), n);
}

#[test]
fn p13_a_commit_that_took_the_last_blocks_is_finished() {
    // Failure: as many blocks are free as the commit has pages, its writer dies between taking one and giving it to its page, and
    // whoever repairs lacks that one: the region fails, for all.
    for n in 0.. {
        let mut readers = Vec::new();
        let before = |byte, s: &mut Session, living: &Arc<Store>| {
            if byte == 4 {
                leave_blocks(3, s, living, &mut readers);
            }
        };
        let (_rig, _processes, store, died) = dies_in(n, before, |s| commit(s, 4, 2..=3, 4, Full).unwrap());
        let mut s = store.session().unwrap();
        s.begin_read().unwrap_or_else(|e| panic!("point {n}: {e}"));
        let _ = s.begin_write(); // repairs; its snapshot may not be the newest any more
        assert_eq!(stat(&store, "repairs"), u64::from(died), "point {n}");
        if !died {
            return assert!(n > 5, "{n} points");
        }
    }
}

#[test]
fn p13_a_commit_that_cannot_be_finished_is_told_and_not_lost() {
    // Failure: blocks that the dead had just taken are out of use until it was settled what they were for, and a pin forbids to
    // store in place. For one death there is a spare one; after two there is none, and who repairs panics under the writer lock.
    let mut failed = 0;
    let deaths = (0..).map(|n| (0..).take_while(|&m| die_in_commit_and_repair(n, m, &mut failed)).count());
    let _ = deaths.take_while(|&repaired| repaired > 0).count();
    assert!(failed > 0, "the last blocks are taken in vain by no two deaths");
}

/// A process dies at point `n` of a commit that only just has the blocks it needs, and another at point
/// `m` of the repair. A third one is told if the commit cannot be finished, which is counted in `failed`. False if one lived.
fn die_in_commit_and_repair(n: u64, m: u64, failed: &mut u32) -> bool {
    let mut readers = Vec::new();
    let before = |byte, s: &mut Session, living: &Arc<Store>| {
        if byte == 4 {
            leave_blocks(3, s, living, &mut readers);
        }
    };
    let (rig, processes, store, died) = dies_in(n, before, |s| commit(s, 4, [2], 4, Full).unwrap());
    let (second, mortal) = processes.start_mortal(3).unwrap();
    let s = second.session().unwrap();
    mortal.dies_after(m);
    let both = died && dies(&mortal, s, |s| _ = s.begin_write());
    processes.kill(3);
    match store.session().unwrap().begin_read() {
        Err(Error::Failed { reason, .. }) => {
            assert!(reason.contains("the commit of a dead process"), "points {n}, {m}: {reason}");
            *failed += 1;
            let mut s = rig.crash(Policy::Newest).open().unwrap().session().unwrap();
            assert_eq!(byte(&mut s, 2).unwrap(), Some(4), "points {n}, {m}: the record was whole");
        }
        other => other.unwrap(),
    }
    both
}
