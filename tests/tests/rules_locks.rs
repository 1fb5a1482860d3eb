//! Rules of what holds a lock and how it ends: maintenance, refusals, panics, cuts and commits without it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use nvlite_engine::{Disk, Durability::Full, Error, MediumKind, Options, Result, Session, Site, Store};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::mortal::Mortal;
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{Rig, byte, commit, offset, prepare, stat};
use nvlite_tests::sim::Policy;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// What `work` answers; it must not take for ever.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || _ = tell.send(work()));
    told.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("{what}: it waits for ever"))
}

fn failed<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Failed { .. }))
}

/// A store on `file` whose pages are at home, in a mapping that has none of them; before each operation on its base `hook`
/// is called.
fn all_at_home(hook: impl Fn(Op) -> Result<()> + Send + Sync + 'static) -> Arc<Store> {
    let rig = Rig::new(MediumKind::File);
    let store = rig.open().unwrap();
    commit(&mut store.session().unwrap(), 4, 2..=4, 1, Full).unwrap();
    store.checkpoint().unwrap();
    let rig = rig.crash(Policy::Newest);
    let segment = nvlite_engine::shm::Segment::private(nvlite_engine::mapping_len(rig.budget(), rig.kind())).unwrap();
    let mut parts = rig.parts(segment, nvlite_engine::shm::Liveness::solo());
    parts.base = hooked::base(parts.base, hook);
    Store::assemble(parts).unwrap()
}

#[test]
fn p2_a_panic_in_the_middle_of_a_commit_fails_the_region() {
    // Failure: the panic is caught and the connection closed, which gives its lock back; its owner lives, so nobody repairs
    // what it left: readers wait at the gate for ever, or find half of the commit.
    let mut n = 0;
    loop {
        let rig = Rig::new(MediumKind::Dax);
        let segment = nvlite_engine::shm::Segment::private(nvlite_engine::mapping_len(rig.budget(), rig.kind()));
        let mut parts = rig.parts(segment.unwrap(), nvlite_engine::shm::Liveness::solo());
        let user;
        (parts.region, user) = Mortal::over(parts.region, &rig.world);
        let store = Store::assemble(parts).unwrap();
        let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
        (1..=3).for_each(|byte| commit(&mut s, 4, 2..=4, byte, Full).unwrap());
        prepare(&mut s, 4, 2..=4, 4).unwrap();
        user.panics_after(n);
        let caught = catch_unwind(AssertUnwindSafe(|| s.commit(Full)));
        user.dies_after(u64::MAX);
        drop(s);
        if let Ok(done) = caught {
            done.unwrap();
            break;
        }
        let read = in_time("a reader", move || reader.begin_read());
        assert!(failed(&read), "point {n}: {read:?}");
        assert!(failed(&store.session().map(|_| ())), "point {n}");
        let mut s = rig.crash(Policy::Newest).open().unwrap().session().unwrap();
        let got = byte(&mut s, 2).unwrap();
        assert!(got == Some(3) || got == Some(4), "point {n}: {got:?}");
        n += 1;
    }
    assert!(n > 5, "{n} points");
}

#[test]
fn p13_a_connection_that_panicked_under_the_writer_lock_fails_the_region() {
    // Failure: a panic in the middle of a write leaves the lists of blocks half changed, and the close gives the lock back.
    for writes in [false, true] {
        let store = Rig::new(MediumKind::Dax).open().unwrap();
        let [mut s, mut other] = [(); 2].map(|()| store.session().unwrap());
        commit(&mut s, 4, 2..=4, 1, Full).unwrap();
        s.begin_read().unwrap();
        if writes {
            prepare(&mut s, 4, 2..=4, 2).unwrap();
        }
        s.abandon();
        drop(s);
        assert_eq!(failed(&other.begin_write()), writes);
    }
}

#[test]
fn p16_a_panic_in_a_retirement_fails_the_region() {
    // Failure: the retirement lock is kept by one that lives and will not come back to it; whoever needs room in the log
    // waits for ever.
    let panics = Arc::new(AtomicBool::new(false));
    let its = panics.clone();
    let hook = move |op| match op {
        Op::Sync(Site::SuperblockSync) if its.swap(false, Ordering::SeqCst) => resume_unwind(Box::new("a defect")),
        _ => Ok(()),
    };
    let store = Rig::new(MediumKind::File).open_with(|disk: Arc<dyn Disk>| hooked::disk(disk, hook)).unwrap();
    let [mut s, mut other] = [(); 2].map(|()| store.session().unwrap());
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| s.checkpoint())).is_err());
    let checked = in_time("a checkpoint", move || other.checkpoint());
    assert!(failed(&checked), "{checked:?}");
    std::mem::forget((s, store)); // it has the writer lock still
}

#[test]
fn p13_a_panic_in_maintenance_fails_the_region() {
    // Failure: a reader brings a page in under the writer lock, and keeps that.
    let panics = Arc::new(AtomicU32::new(0));
    let its = panics.clone();
    let store = all_at_home(move |op| {
        // the second read of the page is for bringing it in
        if op == Op::Read && its.load(Ordering::SeqCst) > 0 && its.fetch_sub(1, Ordering::SeqCst) == 1 {
            resume_unwind(Box::new("a defect"));
        }
        Ok(())
    });
    let [mut reader, mut s] = [(); 2].map(|()| store.session().unwrap());
    reader.begin_read().unwrap();
    panics.store(2, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| byte(&mut reader, 2))).is_err());
    let wrote = in_time("a writer", move || s.begin_write());
    assert!(failed(&wrote), "{wrote:?}");
    std::mem::forget((reader, store));
}

#[test]
fn p11_maintenance_is_waited_for_however_many_come_for_it() {
    // Failure: a second reader that would bring a page in does not get the lock, and takes the first one's word with it that
    // this is maintenance. A writer is told that the database is busy, though nobody writes.
    let (reads, (tell, told)) = (Arc::new(AtomicU32::new(0)), mpsc::channel::<()>());
    let (its, told) = (reads.clone(), Mutex::new(told));
    let store = all_at_home(move |op| {
        if op == Op::Read && its.load(Ordering::SeqCst) > 0 && its.fetch_sub(1, Ordering::SeqCst) == 1 {
            told.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    let [mut first, mut second, mut writer] = [(); 3].map(|()| store.session().unwrap());
    std::thread::scope(|scope| {
        first.begin_read().unwrap();
        second.begin_read().unwrap();
        second.size().unwrap();
        first.size().unwrap();
        reads.store(2, Ordering::SeqCst);
        scope.spawn(move || byte(&mut first, 2).unwrap());
        while reads.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(byte(&mut second, 3).unwrap(), Some(1));
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            tell.send(()).unwrap();
        });
        writer.begin_write().expect("it waits for the maintainer");
    });
}

#[test]
fn p11_a_refusal_is_forgotten_once_a_call_is_served() {
    // Failure: the thread's next sleep, whatever it is for, is taken for its busy handler's, and stands in the queue.
    let store = Rig::new(MediumKind::Dax).open().unwrap();
    let [mut a, mut b, mut c] = [(); 3].map(|()| store.session().unwrap());
    let queued = |reads: Option<u8>, [a, b, c]: [&mut Session; 3]| {
        b.begin_write().unwrap();
        assert!(a.begin_write().is_err());
        a.end_read();
        if let Some(which) = reads {
            let reader = if which == 0 { a } else { c };
            reader.begin_read().unwrap();
            reader.end_read();
        }
        let queued = std::thread::scope(|scope| {
            let look = scope.spawn(|| {
                (0..60).any(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    stat(&store, "queue") > 0
                })
            });
            nvlite_engine::store::sleep(Duration::from_millis(60));
            look.join().unwrap()
        });
        b.end_read();
        queued
    };
    assert!(queued(None, [&mut a, &mut b, &mut c]), "the sleep of a busy handler is a place in the queue");
    assert!(!queued(Some(0), [&mut a, &mut b, &mut c]), "a sleep after a call that was served is none");
    assert!(!queued(Some(1), [&mut a, &mut b, &mut c]), "nor is one after a call of another connection");
}

#[test]
fn p11_a_connection_may_be_closed_when_its_thread_has_ended() {
    // Failure: the thread-local that remembers refusals is gone before another one that holds a connection is. To use it is a
    // panic in a destructor, which ends the process.
    thread_local! {
        static KEPT: RefCell<Option<Session>> = const { RefCell::new(None) };
    }
    let store = Rig::new(MediumKind::Dax).open().unwrap();
    let s = store.session().unwrap();
    let connections = stat(&store, "connections");
    let thread = std::thread::spawn(move || {
        KEPT.set(Some(s)); // the first to be used is the last to go
        nvlite_engine::store::sleep(Duration::ZERO);
    });
    thread.join().unwrap();
    assert_eq!(stat(&store, "connections"), connections - 1);
}

#[test]
fn p6_a_cut_after_the_commit_takes_the_lock_again() {
    // Failure: without an unlock after its last commit, a connection cuts the database while another one writes; the cut is
    // noted without the lock, and lost without a word.
    let store = Rig::new(MediumKind::Dax).open().unwrap();
    let [mut a, mut b] = [(); 2].map(|()| store.session().unwrap());
    prepare(&mut a, 4, 2..=4, 1).unwrap();
    a.commit(Full).unwrap();
    a.truncate(offset(4)).unwrap();
    assert!(matches!(b.begin_write(), Err(Error::Busy(_))), "it has the lock again");
    b.end_read();
    a.end_write();
    prepare(&mut a, 4, 2..=4, 2).unwrap();
    a.commit(Full).unwrap();
    commit(&mut b, 4, 2..=4, 3, Full).unwrap();
    assert!(matches!(a.truncate(offset(4)), Err(Error::LockLost)), "another one has committed");
}

#[test]
fn a_write_too_far_out_is_told_as_that() {
    for known in [false, true] {
        let store = Rig::new(MediumKind::Dax).open().unwrap();
        let mut s = store.session().unwrap();
        if known {
            commit(&mut s, 4, 2..=4, 1, Full).unwrap();
        }
        s.begin_write().unwrap();
        match s.write(u64::MAX >> 1, b"x") {
            Err(Error::Full { cause, .. }) => assert!(cause.contains("last page"), "{cause}"),
            other => panic!("{other:?}"),
        }
        s.truncate(u64::MAX >> 1).unwrap();
    }
}

#[test]
fn a_close_that_is_refused_leaves_no_slot_behind() {
    // Failure: a store with open connections is asked to close. Its thread ends and another one begins; the first one's slot
    // is taken for a connection's as long as the process lives.
    let dir = tempfile::tempdir().unwrap();
    let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
    let store = Store::attach(Arc::new(PlainBase::new(&dir.path().join("a.db"))), &options).unwrap();
    let s = store.session().unwrap();
    for _ in 0..3 {
        // it takes its slot at its first turn
        let (before, began) = (stat(&store, "slots"), Instant::now());
        while stat(&store, "slots") == before && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(stat(&store, "slots"), 3, "the store, its thread, and one connection");
        assert!(matches!(store.clone().close(), Err(Error::Busy(_))));
    }
    drop(s);
    store.close().unwrap();
}
