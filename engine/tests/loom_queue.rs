//! Two writers at once, or a writer that sleeps for ever because its grant or its wake was lost (P11). In these models no time
//! passes, so that nothing but the protocol ends a wait; one that does not end exceeds loom's limits.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use nvlite_engine::shm::{AttachmentNo, Hold, Liveness, Lock, OwnedLock, SlotNo, Slots, WriterLock};
use std::time::Duration;

struct World {
    slots: Slots,
    live: Liveness,
    queue: WriterLock,
    lock: OwnedLock,
    /// What the locks protect.
    count: UnsafeCell<u32>,
}

// SAFETY: what is under test; loom reports two writers at once.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn world(n: u32) -> (Arc<World>, Vec<SlotNo>) {
    let (slots, live) = (Slots::model(n), Liveness::solo());
    let nos = (0..n).map(|_| slots.claim(live.own(), &live).expect("a slot")).collect();
    let world = World { slots, live, queue: WriterLock::new(), lock: OwnedLock::new(), count: UnsafeCell::new(0) };
    (Arc::new(world), nos)
}

impl World {
    fn count_up(&self) {
        // SAFETY: loom checks it.
        self.count.with_mut(|p| unsafe { *p += 1 });
    }

    /// One transaction of a connection whose busy handler never gives up.
    fn write(&self, me: SlotNo) {
        while self.queue.try_hold(&self.slots, me, &self.live) != Hold::Held {
            self.queue.note_refusal(&self.slots, me);
            self.queue.wait(&self.slots, me, Duration::from_secs(1), &self.live);
        }
        self.count_up();
        self.queue.release(&self.slots, me);
    }

    fn counted(&self) -> u32 {
        // SAFETY: loom checks it.
        self.count.with(|p| unsafe { *p })
    }
}

fn bounded(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(f);
}

#[test]
fn p11_two_writers_exclude_each_other_and_both_are_served() {
    bounded(3, || {
        let (w, nos) = world(2);
        let other = {
            let (w, me) = (w.clone(), nos[1]);
            thread::spawn(move || w.write(me))
        };
        w.write(nos[0]);
        other.join().expect("no panic");
        assert_eq!(w.counted(), 2);
    });
}

#[test]
fn p11_a_holder_releases_to_two_waiters_and_both_are_served() {
    bounded(2, || {
        let (w, nos) = world(3);
        assert_eq!(w.queue.try_hold(&w.slots, nos[0], &w.live), Hold::Held);
        let others = [nos[1], nos[2]].map(|me| {
            let w = w.clone();
            thread::spawn(move || w.write(me))
        });
        w.count_up();
        w.queue.release(&w.slots, nos[0]);
        for other in others {
            other.join().expect("no panic");
        }
        assert_eq!(w.counted(), 3);
    });
}

#[test]
fn p11_the_impatient_do_not_make_the_patient_sleep_for_ever() {
    bounded(3, || {
        let (w, nos) = world(2);
        let patient = {
            let (w, me) = (w.clone(), nos[1]);
            thread::spawn(move || w.write(me))
        };
        // Takes the lock if it can, and once looks into the queue without waiting.
        if w.queue.try_hold(&w.slots, nos[0], &w.live) == Hold::Held {
            w.count_up();
            w.queue.release(&w.slots, nos[0]);
        } else if w.queue.wait(&w.slots, nos[0], Duration::ZERO, &w.live) {
            if w.queue.try_hold(&w.slots, nos[0], &w.live) == Hold::Held {
                w.queue.release(&w.slots, nos[0]);
            }
        }
        patient.join().expect("no panic");
    });
}

#[test]
fn p11_a_dead_holders_lock_goes_to_one_heir_who_is_told() {
    bounded(3, || {
        let slots = Slots::model(3);
        let died = Arc::new(AtomicBool::new(false));
        let oracle = |own: u32, died: &Arc<AtomicBool>| {
            let died = died.clone();
            // Attachment 1 is the one that dies.
            let alive = move |no: AttachmentNo| no.0 != 1 || !died.load(Ordering::Acquire);
            Liveness::solo_as(AttachmentNo(own), std::sync::Arc::new(alive))
        };
        let (first, live) = (oracle(1, &died), oracle(2, &died));
        let dead = slots.claim(first.own(), &first).expect("a slot");
        let heirs = [(); 2].map(|()| slots.claim(live.own(), &live).expect("a slot"));
        let (queue, lock, count) = (WriterLock::new(), OwnedLock::new(), UnsafeCell::new(0));
        let w = Arc::new(World { slots, live, queue, lock, count });

        assert_eq!(w.queue.try_hold(&w.slots, dead, &first), Hold::Held);
        assert_eq!(w.lock.try_lock(&w.slots, dead, &first), Lock::Locked);
        let heirs = heirs.map(|me| {
            let w = w.clone();
            thread::spawn(move || {
                let mut told = 0;
                match w.queue.try_hold(&w.slots, me, &w.live) {
                    Hold::HeldAfterDeath { dead: who } => {
                        assert_eq!(who, dead);
                        told += 1;
                        w.count_up();
                        w.queue.repair_done(&w.slots, me);
                        w.queue.release(&w.slots, me);
                    }
                    Hold::Held => {
                        w.count_up();
                        w.queue.release(&w.slots, me);
                    }
                    Hold::Busy => {}
                }
                told
            })
        });
        w.count_up();
        died.store(true, Ordering::Release);
        let told: u32 = heirs.into_iter().map(|heir| heir.join().expect("no panic")).sum();
        assert!(told <= 1, "told twice of one death");
        if told == 0 {
            assert_eq!(w.queue.holder(), Some(dead));
        }
    });
}

#[test]
fn an_owned_lock_excludes() {
    bounded(3, || {
        let (w, nos) = world(2);
        let turn = |w: &World, me| {
            if w.lock.try_lock(&w.slots, me, &w.live) == Lock::Locked {
                w.count_up();
                w.lock.unlock(me);
            }
        };
        let other = {
            let (w, me) = (w.clone(), nos[1]);
            thread::spawn(move || turn(&w, me))
        };
        turn(&w, nos[0]);
        other.join().expect("no panic");
    });
}
