//! A process is killed after every single store to the mapping that an operation makes (P13). Each time those who are left must come
//! to hold the locks, hand them on, get a slot, and find no pin, pointer or phantom of the dead.
//!
//! The victim is stepped instruction by instruction (`ptrace`) while we watch the mapping; where it has changed for the n-th time,
//! the victim dies; then the next victim, for n + 1.
#![cfg(all(not(loom), target_os = "linux"))]

mod shm_common;

use nvlite_engine::base::Jci;
use nvlite_engine::shm::{Hold, Lock, PinAt, Pinned, SlotNo};
use shm_common::{Actor, SOON, World, eventually, role as my_role, say};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What of the mapping is watched: the header and some slots.
const WATCHED: usize = 4096 + 16 * 128;

/// The victim: gets ready, stops for its tracer, acts, stops again.
#[test]
fn role() {
    let Some((name, dir)) = my_role() else { return };
    let w = World::join(&dir);
    let me = if name == "attach" { None } else { Some(w.claim()) };
    // SAFETY: our parent is the test that asked for it; the calls touch no memory.
    let tid = unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0), 0);
        libc::gettid()
    };
    say(tid);
    stop();
    match me {
        Some(me) => act(&name, &w, me),
        None => attach(&w),
    }
    stop();
}

fn stop() {
    // SAFETY: a signal to this thread.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSTOP) };
}

fn attach(w: &World) {
    w.slots.inherit(&w.live);
    let me = w.claim();
    w.slots.release(me);
}

fn act(name: &str, w: &World, me: SlotNo) {
    let (queue, slot) = (w.queue(), w.slots.get(me));
    match name {
        "hold and release" => {
            assert_eq!(queue.try_hold(&w.slots, me, &w.live), Hold::Held);
            queue.release(&w.slots, me);
        }
        "hand over" => {
            assert_eq!(queue.try_hold(&w.slots, me, &w.live), Hold::Held);
            while queue.waiting(&w.slots) == 0 {}
            queue.release(&w.slots, me);
        }
        "lead" => {
            assert_eq!(w.flush().try_lock(&w.slots, me, &w.live), Lock::Locked);
            w.flush().unlock(me);
        }
        "commit" => {
            assert_eq!(queue.try_hold(&w.slots, me, &w.live), Hold::Held);
            w.clock().close_gate(w.slots.holder(me));
            w.clock().open_gate_at(w.clock().published().next(), slot);
            w.clock().set_durable(w.clock().published());
            queue.release(&w.slots, me);
        }
        "read" => {
            let Pinned::At(_) = w.clock().pin(slot, PinAt::Visible, None, &|_| true) else { unreachable!("no gate") };
            slot.begin_copy();
            slot.add_fetch();
            slot.end_copy();
            slot.drop_fetch();
            slot.unpin();
        }
        "wait in vain" => {
            assert_eq!(queue.try_hold(&w.slots, me, &w.live), Hold::Busy);
            queue.note_refusal(&w.slots, me);
            assert!(!queue.wait(&w.slots, me, Duration::from_millis(2), &w.live));
        }
        "wait for a free lock" => {
            assert!(queue.wait(&w.slots, me, Duration::from_secs(1), &w.live));
            assert_eq!(queue.try_hold(&w.slots, me, &w.live), Hold::Held);
            queue.release(&w.slots, me);
        }
        "repair" => {
            let Hold::HeldAfterDeath { .. } = queue.try_hold(&w.slots, me, &w.live) else {
                unreachable!("one has died")
            };
            queue.repair_done(&w.slots, me);
            queue.release(&w.slots, me);
        }
        "claim and reap" => {
            // Our own slot was one of the dead, this is another, and a third is reaped.
            let other = w.claim();
            w.slots.release(other);
            w.slots.reap_dead(&w.live);
            w.slots.release(me);
        }
        other => unreachable!("no role {other}"),
    }
}

fn watched(w: &World) -> Vec<u8> {
    let mut bytes = vec![0; WATCHED];
    w.segment.copy_out(0, &mut bytes);
    bytes
}

/// Steps the victim to its `n`-th change of the mapping and kills it there. False if it got to its end before.
fn kill_at(w: &World, mut victim: Actor, n: usize) -> bool {
    let tid = victim.hear_number() as i32;
    let wait = || {
        let mut status = 0;
        // SAFETY: waits for the thread that this one traces.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid);
        assert!(libc::WIFSTOPPED(status), "the victim ended by itself");
        libc::WSTOPSIG(status)
    };
    assert_eq!(wait(), libc::SIGSTOP);
    let (mut changes, mut before) = (0, watched(w));
    loop {
        // SAFETY: the victim is stopped, and this thread is its tracer.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, tid, 0, 0) }, 0);
        if wait() == libc::SIGSTOP {
            end(victim, tid);
            return false;
        }
        let now = watched(w);
        changes += usize::from(now != before);
        before = now;
        if changes == n {
            end(victim, tid);
            return true;
        }
    }
}

/// Kills the victim. Its traced thread is ours to bury, before the process can be.
fn end(mut victim: Actor, tid: i32) {
    victim.strike();
    let mut status = 0;
    // SAFETY: as in `kill_at`.
    while unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } == tid && libc::WIFSTOPPED(status) {}
    victim.bury();
}

/// What must hold for `me` after any death.
fn survive(w: &World, me: SlotNo, second: SlotNo) {
    let queue = w.queue();
    eventually("the writer lock", || match queue.try_hold(&w.slots, me, &w.live) {
        Hold::Busy => false,
        Hold::Held => true,
        Hold::HeldAfterDeath { dead } => {
            assert!(dead != me && dead != second);
            if w.clock().gate_owner().is_some() {
                w.clock().close_gate(w.slots.holder(me));
                w.clock().open_gate_at(w.clock().published(), w.slots.get(me));
                w.slots.get(me).unpin();
            }
            queue.repair_done(&w.slots, me);
            true
        }
    });
    assert_ne!(w.flush().try_lock(&w.slots, me, &w.live), Lock::Busy);
    w.flush().unlock(me);
    w.slots.reap_dead(&w.live);
    assert!(w.slots.used().all(|(no, _)| no == me || no == second), "a dead one's slot is left: {:?}", w.slots);
    assert!(w.slots.oldest_pin().is_none() && !w.slots.fetches_out());
    assert_eq!(w.clock().gate_owner(), None);

    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            while queue.try_hold(&w.slots, second, &w.live) != Hold::Held {
                queue.wait(&w.slots, second, SOON, &w.live);
            }
            queue.release(&w.slots, second);
        });
        eventually("a waiter", || queue.waiting(&w.slots) == 1);
        queue.release(&w.slots, me);
        waiter.join().expect("the lock is handed on");
    });
    assert_eq!(queue.try_hold_idle(&w.slots, me), Hold::Held, "no phantom waits");
    queue.release(&w.slots, me);
    assert!(matches!(w.clock().pin(w.slots.get(me), PinAt::Visible, None, &|_| true), Pinned::At(_)));
    w.slots.get(me).unpin();
}

/// Kills a victim at every store of `role`; `before` sets the stage each time.
fn at_every_store(role: &str, before: impl Fn(&World, &Path, SlotNo), after: impl Fn(&World, SlotNo)) {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    w.clock().init(Jci(1));
    let (me, second) = (w.claim(), w.claim());
    let mut n = 1;
    loop {
        before(&w, dir.path(), me);
        let died = kill_at(&w, Actor::play(role, dir.path()), n);
        after(&w, me);
        survive(&w, me, second);
        if !died {
            break;
        }
        n += 1;
    }
    assert!(n > 2, "it has hardly stored anything");
    eprintln!("{role}: {} deaths", n - 1);
}

fn nothing(_: &World, _: &Path, _: SlotNo) {}

#[test]
fn p13_death_at_every_store_of_one_that_holds_and_releases() {
    at_every_store("hold and release", nothing, |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_one_that_hands_over_to_a_waiter() {
    let (waiter, dead) = (RefCell::new(None), Arc::new(AtomicBool::new(false)));
    let start = |_: &World, dir: &Path, _| {
        dead.store(false, Ordering::Relaxed);
        let (w, dead) = (World::join(dir), dead.clone());
        *waiter.borrow_mut() = Some(std::thread::spawn(move || {
            let me = w.claim();
            // Not before the victim holds the lock, unless it never will.
            while w.queue().holder().is_none() && !dead.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            loop {
                match w.queue().try_hold(&w.slots, me, &w.live) {
                    Hold::Held => break,
                    Hold::HeldAfterDeath { .. } => break w.queue().repair_done(&w.slots, me),
                    Hold::Busy => w.queue().wait(&w.slots, me, SOON, &w.live),
                };
            }
            w.queue().release(&w.slots, me);
            w.slots.release(me);
        }));
    };
    let join = |_: &World, _| {
        dead.store(true, Ordering::Relaxed);
        let waiter = waiter.borrow_mut().take().expect("started");
        waiter.join().expect("the waiter gets the lock, whenever the victim died");
    };
    at_every_store("hand over", start, join);
}

#[test]
fn p13_death_at_every_store_of_a_leader_of_the_flush() {
    at_every_store("lead", nothing, |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_one_that_commits_through_the_gate() {
    at_every_store("commit", nothing, |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_a_reader() {
    at_every_store("read", nothing, |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_a_waiter_for_a_held_lock() {
    let hold = |w: &World, _: &Path, me| assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Held);
    at_every_store("wait in vain", hold, |w, me| w.queue().release(&w.slots, me));
}

#[test]
fn p13_death_at_every_store_of_a_waiter_for_a_free_lock() {
    at_every_store("wait for a free lock", nothing, |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_one_that_repairs_what_another_left() {
    at_every_store("repair", |_, dir, _| die_holding(dir), |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_one_that_claims_and_reaps() {
    at_every_store("claim and reap", |_, dir, _| die_reading(dir), |_, _| {});
}

#[test]
fn p13_death_at_every_store_of_one_that_attaches_under_a_dead_ones_number() {
    at_every_store("attach", |_, dir, _| die_reading(dir), |_, _| {});
}

/// Another process dies with three connections that read.
fn die_reading(dir: &Path) {
    let w = World::join(dir);
    for _ in 0..3 {
        let me = w.claim();
        let Pinned::At(_) = w.clock().pin(w.slots.get(me), PinAt::Visible, None, &|_| true) else {
            unreachable!("open")
        };
        w.slots.get(me).begin_copy();
        w.slots.get(me).add_fetch();
    }
}

/// Another process takes the writer lock and dies.
fn die_holding(dir: &Path) {
    let w = World::join(dir);
    let me = w.claim();
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Held);
    // Ending an attachment without giving anything back is what death is to the others.
    drop(w);
}
