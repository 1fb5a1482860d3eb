//! Readers in other processes arrive while a writer commits in place, thousands of times: none may see half of a commit, and none
//! may be left asleep at the gate (P2). `loom_gate.rs` shows it for every interleaving of a few steps; this for real processors.
#![cfg(not(loom))]

mod shm_common;

use nvlite_engine::base::Jci;
use nvlite_engine::shm::{PinAt, Pinned, SlotNo};
use shm_common::{Actor, World, eventually, listen, role as my_role, say, wait_for_the_end};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Two pages of one word. A head names the block of the newest version and since when it is that; the block beside it has the one before.
const HEADS: u64 = 2048;
const BLOCKS: u64 = 2064;

fn word(w: &World, base: u64, i: u64) -> &AtomicU64 {
    w.segment.at(base + i * 8)
}

/// Reads until told to stop, then says how often.
#[test]
fn role() {
    let Some((_, dir)) = my_role() else { return };
    let w = World::join(&dir);
    let me = w.claim();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    say("ready");
    std::thread::spawn(move || {
        listen();
        stopped.store(true, Ordering::Relaxed);
    });
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        read(&w, me);
        n += 1;
    }
    say(n);
    wait_for_the_end()
}

fn read(w: &World, me: SlotNo) {
    let slot = w.slots.get(me);
    let alive = |owner| w.slots.is_alive(owner, &w.live);
    let Pinned::At(jci) = w.clock().pin(slot, PinAt::Visible, None, &alive) else { unreachable!("nobody died") };
    for page in 0..2 {
        let head = word(w, HEADS, page).load(Ordering::Acquire);
        let block = if head >> 1 <= jci.0 { head & 1 } else { 1 - (head & 1) };
        // Relaxed, as the bytes of a page are: the pin alone must do.
        assert_eq!(word(w, BLOCKS, page * 2 + block).load(Ordering::Relaxed), jci.0, "page {page}");
    }
    slot.unpin();
}

fn commit(w: &World, me: SlotNo, jci: Jci, pins: &mut Vec<u64>) -> bool {
    w.clock().close_gate(w.slots.holder(me));
    w.slots.pins_but(Some(me), pins);
    let copy = !pins.is_empty();
    for page in 0..2 {
        let head = word(w, HEADS, page).load(Ordering::Relaxed);
        let block = if copy { 1 - (head & 1) } else { head & 1 };
        word(w, BLOCKS, page * 2 + block).store(jci.0, Ordering::Relaxed);
        if copy {
            word(w, HEADS, page).store(jci.0 << 1 | block, Ordering::Release);
        }
    }
    w.clock().open_gate_at(jci, w.slots.get(me));
    copy
}

#[test]
fn p2_no_reader_sees_half_of_a_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    let me = w.claim();
    let mut readers: Vec<Actor> = (0..2).map(|_| Actor::play("reader", dir.path())).collect();
    for reader in &mut readers {
        reader.hear();
    }
    let (mut pins, mut copied, mut stored) = (Vec::new(), 0, 0);
    let mut n = 0;
    eventually("both ways of committing", || {
        for _ in 0..1000 {
            // A block may be stored to again only when nobody pins the version in it: two blocks serve one pinned version.
            while w.slots.oldest_pin().is_some_and(|pin| pin != Jci(n)) {
                std::thread::yield_now();
            }
            n += 1;
            *if commit(&w, me, Jci(n), &mut pins) { &mut copied } else { &mut stored } += 1;
        }
        copied >= 200 && stored >= 200
    });
    let mut reads = 0;
    for reader in &mut readers {
        reader.tell("stop");
        reads += reader.hear_number();
    }
    assert!(reads > 0);
    eprintln!("{reads} reads; {copied} commits copied, {stored} stored in place");
}
