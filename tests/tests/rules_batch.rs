//! Rules of the batch on `file` (P18), as the region's file sees them: every write and sync in its order.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::format::layout::{Layout, RING_AT};
use nvlite_engine::format::superblock::{SIZE, Superblock};
use nvlite_engine::{Disk, Durability::Full, Durability::Process, Error, MediumKind, Region, Result, Site, Store};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::processes::Processes;
use nvlite_tests::rules::{Rig, all_are, byte, commit, stat, until_granted};
use nvlite_tests::sim::{Fault, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Bytes that a device writes at once.
const BLOCK: u64 = 4096;
const BUDGET: u64 = 160 << 10;

/// What happened to the region's file.
enum Call {
    Write(u64, Vec<u8>),
    /// The sync of a batch begins.
    Begin,
    Sync(Site),
}

type Hook = Box<dyn FnMut() + Send>;

/// A file that keeps a record, and calls something before a batch is synced.
struct Recorder {
    inner: Arc<dyn Disk>,
    calls: Mutex<Vec<Call>>,
    hook: Mutex<Option<Hook>>,
}

impl Disk for Recorder {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        self.inner.read_at(off, into)
    }
    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        self.calls.lock().unwrap().push(Call::Write(off, bytes.to_vec()));
        self.inner.write_at(off, bytes)
    }
    fn sync(&self, site: Site) -> Result<()> {
        if site == Site::Batch {
            self.calls.lock().unwrap().push(Call::Begin);
        }
        let hook = (site == Site::Batch).then(|| self.hook.lock().unwrap().take()).flatten();
        if let Some(mut hook) = hook {
            hook();
        }
        self.inner.sync(site)?;
        self.calls.lock().unwrap().push(Call::Sync(site));
        Ok(())
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.inner.allocate(off, len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }
}

fn recorded(rig: &Rig) -> (Arc<Store>, Arc<Recorder>) {
    let mut recorder = None;
    let store = rig.open_with(|inner| {
        let made = Arc::new(Recorder { inner, calls: Mutex::default(), hook: Mutex::default() });
        recorder = Some(made.clone());
        made
    });
    (store.unwrap(), recorder.unwrap())
}

fn ring() -> std::ops::Range<u64> {
    RING_AT..RING_AT + Layout::new(BUDGET, 0, false).ring_slots * 1024
}

/// The commits whose records begin in the slots of `bytes`.
fn newest(bytes: &[u8]) -> u64 {
    bytes.chunks(1024).map(|slot| u64::from_le_bytes(slot[8..16].try_into().unwrap())).max().unwrap_or(0)
}

/// What the record shows of the ring.
#[derive(Default)]
struct Seen {
    /// Batches that were synced.
    batches: usize,
    /// Blocks written with zeros, and with records, at least once.
    zeroed: BTreeSet<u64>,
    used: BTreeSet<u64>,
    /// Times that a block of an earlier lap was written again.
    again: usize,
}

/// Goes through the record: a block of a batch is written again, once its sync has begun, only when a durable superblock says that
/// its newest commit is at home, and none is used before it was written with zeros, which happens once.
fn judge(calls: &[Call]) -> Seen {
    let mut seen = Seen::default();
    // newest commit by block: written since the last batch, and acknowledged
    let (mut open, mut sealed) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
    let (mut told, mut low_water) = (0, 0);
    // what recovery accepts it writes again as it is, and syncs
    let recovered = calls.iter().position(|call| matches!(call, Call::Sync(Site::RecoverLog))).map_or(0, |at| at + 1);
    for call in &calls[recovered..] {
        match call {
            Call::Write(off, bytes) if ring().contains(off) => {
                assert!((off | bytes.len() as u64).is_multiple_of(BLOCK), "{} bytes at {off}", bytes.len());
                for (i, block) in bytes.chunks(BLOCK as usize).enumerate() {
                    let at = off + i as u64 * BLOCK;
                    if let Some(jci) = sealed.remove(&at) {
                        assert!(jci <= low_water, "block {at} has commit {jci}, acknowledged; at home is {low_water}");
                        seen.again += 1;
                    }
                    if block.iter().all(|b| *b == 0) && !open.contains_key(&at) {
                        assert!(seen.zeroed.insert(at), "block {at} is zeroed again");
                        continue;
                    }
                    assert!(seen.zeroed.contains(&at), "block {at} is used before it is zeroed");
                    seen.used.insert(at);
                    open.insert(at, newest(block));
                }
            }
            Call::Write(off, bytes) if *off < RING_AT => {
                told = Superblock::decode(&bytes[..SIZE]).unwrap().low_water.0;
            }
            Call::Write(..) => {}
            Call::Begin => sealed.append(&mut open),
            Call::Sync(Site::Batch) => seen.batches += 1,
            Call::Sync(_) => low_water = told,
        }
    }
    seen
}

#[test]
fn p18_a_block_with_acknowledged_records_is_not_written_before_it_is_free() {
    // Failure: the next batch begins in the block in which the last one ended, and a power cut in the middle of that write
    // tears records that were acknowledged. Here with batches of one to five commits, of one to three slots, for many laps.
    let rig = Rig::new(MediumKind::File);
    let (store, recorder) = recorded(&rig);
    let mut s = store.session().unwrap();
    for n in 1..=600u32 {
        let how = if n % 5 == 0 || n % 7 == 0 { Full } else { Process };
        commit(&mut s, 8, 2..=2 + n % 4, (n % 250) as u8, how).unwrap();
    }
    let seen = judge(&recorder.calls.lock().unwrap());
    let blocks = (ring().end - RING_AT) / BLOCK;
    assert!(seen.batches > 150, "{} batches", seen.batches);
    assert!(seen.used.len() as u64 == blocks && seen.again as u64 > blocks, "{} of {blocks}", seen.again);
    assert_eq!(seen.zeroed.len() as u64, blocks, "every block was zeroed, once");
}

#[test]
fn p18_a_long_first_batch_is_followed_by_zeros_from_the_next_block_on() {
    // Failure: the first batch is longer than what is written with zeros at a time, and ends within a block; the zeros of the
    // next step go over the rest of that block, which has acknowledged records.
    for n in 990..=1000 {
        let rig = Rig::with_budget(MediumKind::File, 64 << 20);
        let (store, recorder) = recorded(&rig);
        let mut s = store.session().unwrap();
        commit(&mut s, 2000, 2..=n, 1, Full).unwrap();
        assert!(stat(&store, "ring_used") > 1024);
        recorder.calls.lock().unwrap().clear();
        commit(&mut s, 2000, [2], 2, Full).unwrap();
        for call in recorder.calls.lock().unwrap().iter() {
            if let Call::Write(off, bytes) = call {
                assert!((off | bytes.len() as u64).is_multiple_of(BLOCK), "{} bytes at {off}", bytes.len());
            }
        }
    }
}

#[test]
fn p18_nothing_behind_the_end_of_a_batch_is_written() {
    // Failure: the last block of a batch is written as it stands in the mapping, with what is being copied behind the end. Its
    // writer dies, and the next commit of that number has the other half: together they are taken for a whole one.
    let (store, recorder) = recorded(&Rig::new(MediumKind::File));
    let mut s = store.session().unwrap();
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    while stat(&store, "retirements") < 3 {
        commit(&mut s, 4, [2], 2, Process).unwrap();
    }
    recorder.calls.lock().unwrap().clear();
    for byte in 3..=40 {
        commit(&mut s, 4, [2], byte, if byte % 7 == 0 { Full } else { Process }).unwrap();
    }
    let (mut partial, calls) = (0, recorder.calls.lock().unwrap());
    for call in calls.iter() {
        let Call::Write(off, bytes) = call else { continue };
        if !ring().contains(off) || bytes.iter().all(|b| *b == 0) {
            continue;
        }
        let slots: Vec<_> = bytes.chunks(1024).map(newest).collect();
        let end = slots.iter().rposition(|jci| *jci == newest(bytes)).unwrap() + 1;
        assert!(bytes[end * 1024..].iter().all(|b| *b == 0), "commits {slots:?} at {off}");
        partial += usize::from(end % 4 != 0);
    }
    assert!(partial > 10, "{partial} batches end within a block");
}

#[test]
fn p18_a_commit_during_a_flush_begins_the_next_block() {
    // Failure: the batch is cut where the ring ended when its sync returned, or not at all: a commit that came meanwhile stands
    // in a block that is acknowledged with the batch, and is written again with the next one.
    let rig = Rig::new(MediumKind::File);
    let (store, recorder) = recorded(&rig);
    let mut s = store.session().unwrap();
    commit(&mut s, 4, [2], 1, Full).unwrap();
    for n in (2..40u8).step_by(2) {
        let (its, next) = (store.clone(), u64::from(n) + 1);
        let (tell, told) = std::sync::mpsc::channel();
        let writes = move || {
            let during = its.clone();
            let how = if n % 4 == 0 { Full } else { Process };
            let thread = std::thread::spawn(move || {
                let mut s = during.session().unwrap();
                // the newest commit is not visible yet: the queue grants the lock, and then it is what is pinned
                while let Err(error) = commit(&mut s, 4, [2, 3], n + 1, how) {
                    assert!(matches!(error, Error::BusySnapshot | Error::Busy(_)), "{error}");
                    nvlite_engine::store::sleep(Duration::from_millis(1));
                }
            });
            while stat(&its, "jci_published") < next {
                std::thread::yield_now();
            }
            tell.send(thread).unwrap();
        };
        *recorder.hook.lock().unwrap() = Some(Box::new(writes));
        commit(&mut s, 4, [2], n, Full).unwrap();
        told.recv().unwrap().join().unwrap();
        assert_eq!(stat(&store, "jci_published"), next);
    }
    commit(&mut s, 4, 2..=4, 41, Full).unwrap();
    let seen = judge(&recorder.calls.lock().unwrap());
    assert!(seen.batches > 20, "{} batches", seen.batches);
    drop(recorder);
    assert!(all_are(&mut rig.crash(Policy::Oldest).open().unwrap().session().unwrap(), 2..=4, 41).unwrap());
}

#[test]
fn p5_a_commit_below_full_does_not_wait_for_a_flush() {
    // Failure: the log file is written under the lock that is held while it is synced, and a commit that nobody asked to be
    // durable takes as long as one that is.
    let (store, recorder) = recorded(&Rig::new(MediumKind::File));
    let mut s = store.session().unwrap();
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    for n in (2..60u8).step_by(2) {
        let its = store.clone();
        let commits = move || {
            let during = its.clone();
            let thread = std::thread::spawn(move || {
                let mut s = during.session().unwrap();
                until_granted(|| commit(&mut s, 4, [2, 3], n + 1, Process))
            });
            let begin = Instant::now();
            while !thread.is_finished() {
                assert!(begin.elapsed() < Duration::from_secs(60), "commit {} waits for the flush of {n}", n + 1);
                std::thread::yield_now();
            }
            thread.join().unwrap().unwrap();
        };
        *recorder.hook.lock().unwrap() = Some(Box::new(commits));
        commit(&mut s, 4, [2, 4], n, Full).unwrap();
        assert!(recorder.hook.lock().unwrap().is_none(), "the batch was synced");
    }
    assert!(judge(&recorder.calls.lock().unwrap()).batches >= 30);
}

#[test]
fn p18_what_a_dead_leader_wrote_is_written_again() {
    // Failure: its sync failed, which takes the written pages for clean, and it dies before it can say so. The next leader
    // finds all written and syncs nothing: what it acknowledges, a power cut takes.
    let rig = Rig::new(MediumKind::File);
    let processes = Processes::new(&rig).unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let (its, world, (tell, told)) = (armed.clone(), rig.world.clone(), mpsc::channel::<()>());
    let first = processes.start(1, |region| {
        let Region::Disk(disk) = region else { unreachable!("it is a file") };
        let inner = disk.clone();
        Region::Disk(hooked::disk(disk, move |op| {
            if op == Op::Sync(Site::Batch) && its.load(Ordering::SeqCst) {
                world.fail(Some(Fault { after: 0, errno: 5, times: 1 }));
                assert!(inner.sync(Site::Batch).is_err());
                world.fail(None);
                world.ended();
                tell.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        }))
    });
    let first = first.unwrap();
    let second = processes.start(2, |region| region).unwrap();
    let mut s = first.session().unwrap();
    commit(&mut s, 4, 2..=4, 1, Full).unwrap();
    armed.store(true, Ordering::SeqCst);
    std::thread::spawn(move || commit(&mut s, 4, 2..=3, 2, Full));
    told.recv().unwrap();
    // on top of it, not yet for good
    let mut s = second.session().unwrap();
    until_granted(|| commit(&mut s, 4, 3..=4, 3, Process)).unwrap();
    processes.kill(1);
    commit(&mut s, 4, [4], 4, Full).unwrap();
    let after = rig.crash(Policy::Oldest).open().unwrap();
    let mut s = after.session().unwrap();
    assert_eq!([2, 3, 4].map(|page| byte(&mut s, page).unwrap()), [Some(2), Some(3), Some(4)]);
}

#[test]
fn p18_what_a_retirer_failed_to_sync_before_it_died_is_written_again() {
    // Failure: a retirer's sync of the superblock, in the file of the log, fails, which takes for clean what commits below full
    // have written there, and it dies before it can say so. The next leader finds that written, and syncs nothing.
    let rig = Rig::new(MediumKind::File);
    let processes = Processes::new(&rig).unwrap();
    let second = Arc::new(Mutex::new(None));
    let (its, world, (tell, told)) = (second.clone(), rig.world.clone(), mpsc::channel::<()>());
    let first = processes.start(1, |region| {
        let Region::Disk(disk) = region else { unreachable!("it is a file") };
        let inner = disk.clone();
        Region::Disk(hooked::disk(disk, move |op| {
            let beside = (op == Op::Sync(Site::SuperblockSync)).then(|| its.lock().unwrap().take()).flatten();
            if let Some(mut s) = beside {
                // after what the retirement has flushed, and not for good; a block of the log and more
                (0..6).for_each(|_| commit(&mut s, 4, [3], 3, Process).unwrap());
                world.fail(Some(Fault { after: 0, errno: 5, times: 1 }));
                assert!(inner.sync(Site::SuperblockSync).is_err());
                world.fail(None);
                world.ended();
                *its.lock().unwrap() = Some(s);
                tell.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        }))
    });
    let (first, survivor) = (first.unwrap(), processes.start(2, |region| region).unwrap());
    let mut s = first.session().unwrap();
    for _ in 0..40 {
        commit(&mut s, 4, 2..=4, 2, Full).unwrap();
    }
    *second.lock().unwrap() = Some(survivor.session().unwrap());
    std::thread::spawn(move || first.keep_once());
    told.recv().unwrap();
    processes.kill(1);
    let mut s = second.lock().unwrap().take().unwrap();
    commit(&mut s, 4, [4], 4, Full).unwrap();
    let after = rig.crash(Policy::Oldest).open().unwrap();
    let mut s = after.session().unwrap();
    assert_eq!([2, 3, 4].map(|page| byte(&mut s, page).unwrap()), [Some(2), Some(3), Some(4)]);
}

#[test]
fn p18_a_recovered_log_is_zeroed_before_it_is_used_again() {
    // Failure: the records of the time before recovery stay where the new ones do not reach, or zeros are written over new ones.
    let mut rig = Rig::new(MediumKind::File);
    for life in 0..3u8 {
        let (store, recorder) = recorded(&rig);
        let mut s = store.session().unwrap();
        (1..=20).for_each(|n| commit(&mut s, 8, 2..=8, life * 20 + n, Full).unwrap());
        let seen = judge(&recorder.calls.lock().unwrap());
        assert!(seen.used.is_subset(&seen.zeroed) && seen.batches >= 20, "life {life}: {} batches", seen.batches);
        drop((s, store));
        rig = rig.crash(Policy::Oldest);
    }
    assert!(all_are(&mut rig.open().unwrap().session().unwrap(), 2..=8, 60).unwrap());
}
