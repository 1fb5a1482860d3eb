//! Writers that wait in SQLite's busy handler: served out of order, woken for nothing, kept past their time, or all stopped behind
//! one that does not come for its grant (P11).
#![cfg(not(loom))]

mod shm_common;

use nvlite_engine::shm::{GRANT_EXPIRES, Hold, SlotNo};
use shm_common::{Actor, SOON, World, eventually, listen, role as my_role, say, wait_for_the_end};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the other processes do.
#[test]
fn role() {
    let Some((name, dir)) = my_role() else { return };
    let w = World::join(&dir);
    let me = w.claim();
    say(me.0);
    match name.as_str() {
        // Waits once and says what came of it.
        "waiter" => {
            let granted = w.queue().wait(&w.slots, me, SOON, &w.live);
            say(granted);
            wait_for_the_end()
        }
        // Counts in a word of its own, as a writer would commit, until told to stop.
        "writer" => {
            let stop = std::sync::Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            std::thread::spawn(move || {
                listen();
                stopped.store(true, Ordering::Relaxed);
            });
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                write_once(&w, me);
                n += 1;
            }
            say(n);
            wait_for_the_end()
        }
        other => unreachable!("no role {other}"),
    }
}

/// Where the writers count, and where they note that one of them is at it.
const COUNT: u64 = 2048;
const BUSY: u64 = 2056;

/// One transaction: a count that only mutual exclusion keeps right.
fn write_once(w: &World, me: SlotNo) {
    loop {
        match w.queue().try_hold(&w.slots, me, &w.live) {
            Hold::Held => break,
            Hold::HeldAfterDeath { .. } => {
                w.segment.at::<AtomicU64>(BUSY).store(0, Ordering::Relaxed);
                w.queue().repair_done(&w.slots, me);
                break;
            }
            Hold::Busy => {
                w.queue().note_refusal(&w.slots, me);
                w.queue().wait(&w.slots, me, Duration::from_millis(100), &w.live);
            }
        }
    }
    let (count, busy) = (w.segment.at::<AtomicU64>(COUNT), w.segment.at::<AtomicU64>(BUSY));
    assert_eq!(busy.swap(1, Ordering::Relaxed), 0, "two writers at once");
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    busy.store(0, Ordering::Relaxed);
    w.queue().release(&w.slots, me);
}

fn hold(w: &World, me: SlotNo) {
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Held);
}

/// Repeats `f`, which answers how long it took and whether all was right, until it took less than `limit`: then nothing can have
/// lapsed because this machine was slow, and the answer counts.
fn undisturbed(limit: Duration, mut f: impl FnMut() -> (Duration, bool)) {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        let (took, right) = f();
        if took < limit {
            assert!(right);
            return;
        }
    }
    eprintln!("this machine is too busy to tell");
}

#[test]
fn p11_first_come_is_first_served() {
    undisturbed(GRANT_EXPIRES, || {
        let w = World::solo();
        let me = w.claim();
        hold(&w, me);
        let order = Mutex::new(Vec::new());
        let begin = std::thread::scope(|s| {
            for n in 1..=5 {
                let (w, order) = (&w, &order);
                s.spawn(move || {
                    let me = w.claim();
                    while w.queue().try_hold(&w.slots, me, &w.live) == Hold::Busy {
                        w.queue().wait(&w.slots, me, SOON, &w.live);
                    }
                    order.lock().expect("no panic").push(n);
                    w.queue().release(&w.slots, me);
                });
                eventually("the waiter waits", || w.queue().waiting(&w.slots) == n);
            }
            let begin = Instant::now();
            w.queue().release(&w.slots, me);
            begin
        });
        (begin.elapsed(), *order.lock().expect("no panic") == [1, 2, 3, 4, 5])
    });
}

#[test]
fn p11_a_place_is_kept_between_two_sleeps_of_one_busy_handler() {
    undisturbed(GRANT_EXPIRES, || {
        let w = World::solo();
        let (me, first, second) = (w.claim(), w.claim(), w.claim());
        hold(&w, me);
        assert!(!w.queue().wait(&w.slots, first, Duration::from_millis(1), &w.live));
        let left = Instant::now();
        std::thread::scope(|s| {
            let wait = |slot| w.queue().wait(&w.slots, slot, SOON, &w.live);
            let later = s.spawn(move || wait(second));
            eventually("the second waits", || w.queue().waiting(&w.slots) == 1);
            let again = s.spawn(move || wait(first));
            eventually("the first waits again", || w.queue().waiting(&w.slots) == 2);
            w.queue().release(&w.slots, me);
            let right = w.queue().granted_to(&w.slots, first);
            let took = left.elapsed();
            assert!(
                again.join().expect("no panic") && later.join().expect("no panic"),
                "the grant lapses to the second"
            );
            (took, right)
        })
    });
}

#[test]
fn p11_a_wait_ends_early_only_with_the_lock_and_never_late() {
    let w = World::solo();
    let (holder, waiter) = (w.claim(), w.claim());
    hold(&w, holder);
    for ms in [0, 1, 30] {
        let (asked, begin) = (Duration::from_millis(ms), Instant::now());
        assert!(!w.queue().wait(&w.slots, waiter, asked, &w.live));
        assert!(begin.elapsed() >= asked, "woken for nothing");
        assert!(begin.elapsed() < asked + SOON, "overslept");
    }
    // the least of many: others may have the processor meanwhile. One that watches, and sleeps the same time again, is late by
    // as much each time; it watches every now and then only
    let took = |ms| {
        let begin = Instant::now();
        assert!(!w.queue().wait(&w.slots, waiter, Duration::from_millis(ms), &w.live));
        begin.elapsed()
    };
    let late = |n: usize| (0..n).map(|_| took(1)).max().expect("some");
    let least = (0..20).map(|_| late(17)).min().expect("some");
    assert!(least < Duration::from_millis(2), "{least:?} instead of 1 ms, again and again");
    assert_eq!(w.queue().waiting(&w.slots), 0);
    std::thread::scope(|s| {
        let waiting = s.spawn(|| w.queue().wait(&w.slots, waiter, SOON * 100, &w.live));
        eventually("the waiter waits", || w.queue().waiting(&w.slots) == 1);
        w.queue().release(&w.slots, holder);
        assert!(waiting.join().expect("no panic"), "granted");
    });
}

#[test]
fn p11_a_grant_is_kept_for_its_owner_then_lost() {
    let w = World::solo();
    let (holder, waiter, other) = (w.claim(), w.claim(), w.claim());
    hold(&w, holder);
    let begin = std::thread::scope(|s| {
        s.spawn(|| while !w.queue().wait(&w.slots, waiter, Duration::from_secs(1), &w.live) {});
        eventually("the waiter waits", || w.queue().waiting(&w.slots) == 1);
        let begin = Instant::now();
        w.queue().release(&w.slots, holder);
        begin
    });
    let early = w.queue().try_hold(&w.slots, other, &w.live);
    assert!(early == Hold::Busy || begin.elapsed() >= GRANT_EXPIRES, "taken from its owner too early");
    std::thread::sleep(GRANT_EXPIRES);
    if early == Hold::Busy {
        hold(&w, other);
    }
    assert!(!w.queue().granted_to(&w.slots, waiter));
    assert_eq!(w.queue().try_hold(&w.slots, waiter, &w.live), Hold::Busy);
    assert_eq!(w.queue().holder(), Some(other));
}

#[test]
fn p11_a_grant_to_a_closed_connection_is_nobodys() {
    let w = World::solo();
    let (holder, waiter, other) = (w.claim(), w.claim(), w.claim());
    hold(&w, holder);
    w.queue().release(&w.slots, holder);
    assert!(w.queue().wait(&w.slots, waiter, Duration::ZERO, &w.live), "a free lock is granted to the queue's head");
    assert!(w.queue().granted_to(&w.slots, waiter));
    assert_eq!(w.queue().try_hold_idle(&w.slots, other), Hold::Busy);
    w.slots.release(waiter);
    hold(&w, other);
}

#[test]
fn p11_a_stopped_waiter_delays_the_queue_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    let me = w.claim();
    hold(&w, me);
    let mut stopped = Actor::play("waiter", dir.path());
    let slot = SlotNo(stopped.hear_number());
    eventually("the waiter waits", || w.queue().waiting(&w.slots) == 1);
    // SAFETY: a signal to the actor.
    assert_eq!(unsafe { libc::kill(stopped.pid() as i32, libc::SIGSTOP) }, 0);
    w.queue().release(&w.slots, me);
    assert!(w.queue().granted_to(&w.slots, slot));
    eventually("the grant expires", || w.queue().try_hold(&w.slots, me, &w.live) == Hold::Held);
    w.queue().release(&w.slots, me);
    assert!(!w.queue().granted_to(&w.slots, slot), "no second grant before it has run");
    hold(&w, me);
    w.queue().release(&w.slots, me);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(stopped.pid() as i32, libc::SIGCONT) }, 0);
    assert_eq!(stopped.hear(), "true", "when it runs again it finds the lock free");
}

#[test]
fn p11_a_waiter_takes_over_from_a_holder_killed_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    let me = w.claim();
    let mut holder = Actor::play("waiter", dir.path());
    let dead = SlotNo(holder.hear_number());
    assert_eq!(holder.hear(), "true");
    // It has the grant only; as a holder it is put there by hand, so that it dies as one.
    eventually("the grant expires", || w.queue().try_hold(&w.slots, me, &w.live) == Hold::Held);
    w.queue().release(&w.slots, me);
    assert_eq!(w.queue().try_hold(&w.slots, dead, &w.live), Hold::Held);
    std::thread::scope(|s| {
        let waiting = s.spawn(|| w.queue().wait(&w.slots, me, SOON * 100, &w.live));
        eventually("we wait", || w.queue().waiting(&w.slots) == 1);
        holder.kill();
        assert!(waiting.join().expect("no panic"), "granted");
    });
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::HeldAfterDeath { dead });
}

#[test]
fn p11_a_lock_left_for_those_who_sleep_elsewhere_is_taken_by_nobody_else() {
    undisturbed(Duration::from_millis(2), || {
        let w = World::solo();
        let (holder, outsider, fast, waiter) = (w.claim(), w.claim(), w.claim(), w.claim());
        hold(&w, holder);
        for _ in 0..2 {
            assert_eq!(w.queue().try_hold(&w.slots, outsider, &w.live), Hold::Busy);
            w.queue().note_refusal(&w.slots, outsider);
        }
        std::thread::scope(|s| {
            let (w, queue) = (&w, w.queue());
            s.spawn(move || {
                while queue.try_hold(&w.slots, waiter, &w.live) == Hold::Busy {
                    queue.wait(&w.slots, waiter, SOON, &w.live);
                }
                queue.release(&w.slots, waiter);
            });
            eventually("the waiter waits", || queue.waiting(&w.slots) == 1);
            let begin = Instant::now();
            queue.release(&w.slots, holder);
            let answers = [fast, outsider].map(|me| queue.try_hold(&w.slots, me, &w.live));
            let took = begin.elapsed();
            for (me, answer) in [fast, outsider].into_iter().zip(answers) {
                if answer == Hold::Held {
                    queue.release(&w.slots, me);
                }
            }
            (took, answers == [Hold::Busy, Hold::Held])
        })
    });
}

#[test]
fn p11_a_connection_that_sleeps_elsewhere_is_not_starved() {
    let w = World::solo();
    let (outsider, writers) = (w.claim(), [(); 3].map(|()| w.claim()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for me in writers {
            let (w, stop) = (&w, &stop);
            s.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    while w.queue().try_hold(&w.slots, me, &w.live) == Hold::Busy {
                        w.queue().wait(&w.slots, me, SOON, &w.live);
                    }
                    // Long enough for the others to be asleep: the lock is handed on and on, and never free by chance.
                    std::thread::sleep(Duration::from_micros(500));
                    w.queue().release(&w.slots, me);
                }
            });
        }
        // Its busy handler naps by itself; the nap is shorter than the time for which the lock is left free.
        for _ in 0..3 {
            eventually("a turn for the outsider", || {
                let hold = w.queue().try_hold(&w.slots, outsider, &w.live);
                if hold == Hold::Busy {
                    w.queue().note_refusal(&w.slots, outsider);
                }
                hold == Hold::Held
            });
            w.queue().release(&w.slots, outsider);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn p11_writers_killed_at_random_leave_no_two_writers_and_no_stuck_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    let me = w.claim();
    let count = || w.segment.at::<AtomicU64>(COUNT).load(Ordering::Relaxed);
    let mut writers: Vec<Actor> = (0..4).map(|_| Actor::play("writer", dir.path())).collect();
    for _ in 0..20 {
        let before = count();
        eventually("writers write", || count() >= before + 10);
        writers.remove(0).kill();
        writers.push(Actor::play("writer", dir.path()));
        write_once(&w, me);
        w.slots.reap_dead(&w.live);
    }
    for writer in &mut writers {
        writer.hear();
        writer.tell("stop");
        assert!(writer.hear_number() < u32::MAX, "every survivor comes to its end");
    }
}
