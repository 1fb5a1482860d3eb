//! Commits wait for the batch that they are in: none sleeps on when its batch is through, none waits for a leader that
//! does not come (P18). Under loom a wake-up that is lost is a deadlock.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use nvlite_engine::base::Jci;
use nvlite_engine::shm::Batches;
use std::time::Duration;

struct World {
    batches: Batches,
    /// The flush lock.
    leading: AtomicU64,
    published: AtomicU64,
    durable: AtomicU64,
}

/// As `Engine::flush` does it.
fn commit(w: &World) {
    let jci = w.published.fetch_add(1, Ordering::AcqRel) + 1;
    loop {
        let seen = w.batches.seen();
        if w.durable.load(Ordering::Acquire) >= jci {
            return;
        }
        if w.leading.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            w.batches.wait(seen, Jci(jci), Duration::from_millis(50));
            continue;
        }
        let led = (w.durable.load(Ordering::Acquire) < jci).then(|| {
            let upto = w.published.load(Ordering::Acquire);
            let number = w.batches.begin(Jci(upto));
            w.durable.store(upto, Ordering::Release);
            number
        });
        w.leading.store(0, Ordering::Release);
        match led {
            Some(number) => w.batches.through(number),
            None => w.batches.wake_all(),
        }
    }
}

fn model(commits: &'static [usize], preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let n = || AtomicU64::new(0);
        let world = World { batches: Batches::new(), leading: n(), published: n(), durable: n() };
        let world = Arc::new(world);
        let others: Vec<_> = commits[1..]
            .iter()
            .map(|&n| {
                let world = world.clone();
                thread::spawn(move || (0..n).for_each(|_| commit(&world)))
            })
            .collect();
        (0..commits[0]).for_each(|_| commit(&world));
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        assert_eq!(world.durable.load(Ordering::Relaxed), commits.iter().sum::<usize>() as u64);
    });
}

#[test]
fn p18_no_commit_of_two_waits_for_ever() {
    model(&[2, 1], 3);
}

#[test]
fn p18_no_commit_of_three_waits_for_ever() {
    model(&[1, 1, 1], 2);
}
