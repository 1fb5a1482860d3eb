//! A process is killed while it holds something of the mapping. Whoever comes next must notice, be told what to repair, and lose
//! nothing of the living; and nobody may take a dead process for a living one, or a living one for dead (P13).
#![cfg(not(loom))]

mod shm_common;

use nvlite_engine::base::{Error, Jci};
use nvlite_engine::shm::{AttachLock, ForkGuard, Grace, Hold, Lock, PinAt, Pinned, SlotNo};
use shm_common::{Actor, World, eventually, listen, role as my_role, say, wait_for_the_end};
use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the other processes do.
#[test]
fn role() {
    let Some((name, dir)) = my_role() else { return };
    match name.as_str() {
        "holder" => hold(&dir),
        "reader" => read(&dir),
        "forker" => fork_and_wait(&dir),
        "attacher" => attach(&dir),
        "gatekeeper" => close_gate(&dir),
        other => unreachable!("no role {other}"),
    }
}

/// Holds both locks.
fn hold(dir: &Path) {
    let w = World::join(dir);
    let me = w.claim();
    loop {
        match w.queue().try_hold(&w.slots, me, &w.live) {
            Hold::Held => break say(format!("{} {}", me.0, w.live.own())),
            Hold::HeldAfterDeath { dead } => break say(format!("{} {} after {}", me.0, w.live.own(), dead.0)),
            Hold::Busy => {}
        }
    }
    let _ = w.flush().try_lock(&w.slots, me, &w.live);
    say("flush");
    wait_for_the_end()
}

/// Pins a snapshot, is in the middle of a read, and has a pointer.
fn read(dir: &Path) {
    let w = World::join(dir);
    let me = w.claim();
    let slot = w.slots.get(me);
    assert_eq!(w.clock().pin(slot, PinAt::Visible, None, &|_| true), Pinned::At(Jci(7)));
    slot.begin_copy();
    slot.add_fetch();
    say(me.0);
    wait_for_the_end()
}

/// Attaches and leaves a child behind that has all our descriptors and outlives us.
fn fork_and_wait(dir: &Path) {
    let w = World::join(dir);
    let guard = ForkGuard::new().expect("a guard");
    // SAFETY: the child calls only alarm and pause, and looks at one word.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: calls that are allowed after fork; the child never leaves this block.
        unsafe {
            if guard.in_child() {
                libc::alarm(120);
                loop {
                    libc::pause();
                }
            }
            libc::_exit(1);
        }
    }
    assert!(!guard.in_child(), "the parent is no child");
    say(w.live.own());
    say(child);
    wait_for_the_end()
}

/// Takes the attach lock.
fn attach(dir: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(dir.join("region")).expect("the region file");
    let _lock = AttachLock::take(&file, Duration::from_secs(30)).expect("the attach lock");
    say("attached");
    listen();
}

/// Dies inside the gate.
fn close_gate(dir: &Path) {
    let w = World::join(dir);
    let me = w.claim();
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Held);
    w.clock().close_gate(w.slots.holder(me));
    say(me.0);
    wait_for_the_end()
}

fn stage() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().expect("a directory");
    let w = World::join(dir.path());
    (dir, w)
}

#[test]
fn p13_a_killed_holder_is_told_to_every_next_one_until_it_is_repaired() {
    let (dir, w) = stage();
    let me = w.claim();
    let mut first = Actor::play("holder", dir.path());
    let dead = SlotNo(first.hear().split(' ').next().and_then(|s| s.parse().ok()).expect("a slot"));
    first.hear();
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Busy);
    assert_eq!(w.flush().try_lock(&w.slots, me, &w.live), Lock::Busy);
    first.kill();

    // The second is killed while it repairs.
    let mut second = Actor::play("holder", dir.path());
    assert!(second.hear().ends_with(&format!("after {}", dead.0)));
    second.hear();
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Busy);
    second.kill();

    // We give the lock back without a repair, and take it again.
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::HeldAfterDeath { dead });
    w.queue().release(&w.slots, me);
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::HeldAfterDeath { dead });
    assert_eq!(w.flush().try_lock(&w.slots, me, &w.live), Lock::LockedAfterDeath { dead });

    // What the dead one left may be listed in its slot: nobody gets that before both repairs are done.
    w.slots.reap_dead(&w.live);
    assert_ne!(w.claim(), dead);
    w.queue().repair_done(&w.slots, me);
    w.slots.reap_dead(&w.live);
    assert_ne!(w.claim(), dead);
    w.flush().unlock(me);
    w.queue().release(&w.slots, me);
    assert_eq!(w.claim(), dead);
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Held);
}

#[test]
fn p13_a_dead_attachments_number_given_to_a_new_one_does_not_revive_it() {
    let (dir, w) = stage();
    let me = w.claim();
    let mut first = Actor::play("holder", dir.path());
    let line = first.hear();
    let (slot, number) = line.split_once(' ').expect("slot and attachment");
    let dead = SlotNo(slot.parse().expect("a slot"));
    first.hear();
    first.kill();

    let heir = World::join(dir.path());
    assert_eq!(heir.live.own().0.to_string(), number, "the lowest free number");
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::Busy, "so far it looks alive");
    heir.slots.inherit(&heir.live);
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::HeldAfterDeath { dead });
}

#[test]
fn p13_a_dead_readers_slot_is_reclaimed_with_its_pin_and_its_pointers() {
    let (dir, w) = stage();
    w.clock().init(Jci(7));
    let mut reader = Actor::play("reader", dir.path());
    let slot = SlotNo(reader.hear_number());
    w.slots.reap_dead(&w.live);
    assert_eq!(w.slots.oldest_pin(), Some(Jci(7)), "a living reader keeps its pin");
    assert!(w.slots.fetches_out());
    let mut grace = Grace::begin(&w.slots);
    assert!(!grace.passed(&w.slots));

    reader.kill();
    let mut impatient = Grace::begin(&w.slots);
    assert!(!impatient.passed(&w.slots), "nobody has looked yet");
    impatient.forget_dead(&w.slots, &w.live);
    assert!(impatient.passed(&w.slots));
    eventually("reaped", || w.slots.reap_dead(&w.live) == 1);
    assert_eq!(w.slots.oldest_pin(), None);
    assert!(!w.slots.fetches_out() && grace.passed(&w.slots));
    assert_eq!(w.claim(), slot);
}

#[test]
fn p13_a_death_is_seen_although_a_forked_child_lives_on() {
    let (dir, w) = stage();
    let mut parent = Actor::play("forker", dir.path());
    let (number, child) = (parent.hear_number(), parent.hear_number() as i32);
    assert!(w.alive(number) && w.live.anyone_else());
    parent.kill();
    eventually("the parent's lock ends with it", || !w.alive(number));
    assert!(!w.live.anyone_else());
    // SAFETY: a signal to the child that the actor left us.
    let lived = unsafe { libc::kill(child, 0) == 0 && libc::kill(child, libc::SIGKILL) == 0 };
    assert!(lived, "the child was to outlive its parent");
}

#[test]
fn p13_the_attach_lock_is_one_at_a_time_and_ends_with_its_holder() {
    let (dir, w) = stage();
    let mut other = Actor::play("attacher", dir.path());
    other.hear();
    let file = OpenOptions::new().read(true).write(true).open(dir.path().join("region")).expect("the region file");
    let begin = Instant::now();
    let refused = AttachLock::take(&file, Duration::from_millis(30));
    assert!(matches!(refused, Err(Error::Busy(_))) && begin.elapsed() >= Duration::from_millis(30));
    assert!(!w.live.anyone_else(), "the attach lock is no attachment");
    other.kill();
    let lock = AttachLock::take(&file, shm_common::SOON).expect("the dead one's lock");
    assert!(AttachLock::take(&file, Duration::ZERO).is_err(), "not twice, in one process either");
    drop(lock);
    AttachLock::take(&file, Duration::ZERO).expect("given back");
}

#[test]
fn p2_p13_a_gate_whose_owner_is_killed_is_repaired_by_a_reader() {
    let (dir, w) = stage();
    w.clock().init(Jci(3));
    let me = w.claim();
    let mut writer = Actor::play("gatekeeper", dir.path());
    let dead = SlotNo(writer.hear_number());
    writer.kill();
    let pin = || w.clock().pin(w.slots.get(me), PinAt::Visible, None, &|owner| w.slots.is_alive(owner, &w.live));
    let Pinned::OwnerDead(owner) = pin() else { unreachable!("the gate is closed") };
    assert_eq!(owner.slot, dead);
    assert_eq!(w.slots.get(me).pin(), None, "no pin while the repair may store in place");
    assert_eq!(w.queue().try_hold(&w.slots, me, &w.live), Hold::HeldAfterDeath { dead });
    w.clock().close_gate(w.slots.holder(me));
    w.clock().open_gate_at(Jci(4), w.slots.get(me));
    w.queue().repair_done(&w.slots, me);
    w.queue().release(&w.slots, me);
    assert_eq!(pin(), Pinned::At(Jci(4)));
}

#[test]
fn p13_a_child_knows_that_it_is_one_and_can_begin_anew() {
    let guard = ForkGuard::new().expect("a guard");
    assert!(!guard.in_child());
    // SAFETY: the child makes a guard (no allocation: the page is there) and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let anew = ForkGuard::new();
        let right = guard.in_child() && anew.is_ok_and(|new| !new.in_child() && guard.in_child());
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(if right { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(!guard.in_child());
}

/// Copies of every descriptor of ours on `path`, as a child between vfork and exec has them.
fn copies_of(path: &Path) -> Vec<std::os::fd::OwnedFd> {
    let open = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    let numbers = open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path));
    let numbers: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    // SAFETY: open descriptors, which are borrowed for the call; the copies are new.
    let copy = |n: i32| unsafe { std::os::fd::BorrowedFd::borrow_raw(n).try_clone_to_owned().expect("a copy") };
    numbers.into_iter().map(copy).collect()
}

#[test]
fn p13_who_has_left_is_gone_though_a_starting_child_has_his_descriptors() {
    // Failure: a program starts another one in the moment in which it closes the database; until that child calls exec, whoever
    // opens the database takes the closed attachment for a living one, and joins a mapping that is gone.
    let dir = tempfile::tempdir().expect("a directory");
    let first = World::join(dir.path());
    let region = dir.path().canonicalize().expect("a path").join("region");
    let copies = copies_of(&region);
    assert!(!copies.is_empty(), "it has the region open");
    drop(first);
    let second = World::join(dir.path());
    assert!(!second.live.anyone_else(), "the first has left");
    drop(copies);
}
