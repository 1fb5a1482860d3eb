//! The one thread of an attachment, on `file` only: it bounds the time until commits below FULL are flushed (P5), and
//! retires the log before a writer has to.

use crate::base::sync::Ordering;
use crate::engine::Engine;
use crate::medium::BaseFile;
use crate::retire::Which;
use crate::shm::SlotNo;
use crate::store::Store;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks, and so how long a commit below FULL may stay unflushed.
const PERIOD: Duration = Duration::from_millis(200);
/// How often it looks for the dead.
const REAP: Duration = Duration::from_secs(2);

/// The thread. It ends when nobody can wake it any more.
pub struct Keeper {
    bell: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts it, where the medium needs one.
    pub fn start(engine: &Engine, store: Weak<Store>) -> Option<Keeper> {
        if engine.mapped() {
            return None;
        }
        let (bell, rings) = bounded(1);
        let run = move || run(&rings, &store);
        match std::thread::Builder::new().name("nvlite-keeper".into()).spawn(run) {
            Ok(thread) => Some(Keeper { bell, thread }),
            Err(error) => {
                tracing::warn!(%error, "no keeper thread: writers retire the log themselves");
                None
            }
        }
    }

    /// Wakes it if the log is to be retired.
    pub fn nudge(&self, engine: &Engine) {
        if is_due(engine) {
            let _ = self.bell.try_send(()); // full: it has been woken
        }
    }

    /// Ends it. In a forked child there is no such thread, and another one may have had the channel's lock at the fork.
    pub fn stop(self, forked: bool) {
        if forked {
            return std::mem::forget(self);
        }
        let Keeper { bell, thread } = self;
        drop(bell);
        // it may be the keeper itself that drops the store last
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// True if half of the log is used: the later it is retired, the more often were its pages changed that are written once,
/// but what is left has to last for the writers meanwhile.
fn is_due(engine: &Engine) -> bool {
    engine.ring_used() > engine.layout.ring_slots / 2
}

fn run(rings: &Receiver<()>, store: &Weak<Store>) {
    let mut own: Option<(SlotNo, Box<dyn BaseFile>)> = None;
    let mut reaped = Instant::now();
    while rings.recv_timeout(PERIOD) != Err(RecvTimeoutError::Disconnected) {
        let Some(store) = store.upgrade() else { continue };
        if let Err(error) = turn(&store, &mut own) {
            tracing::debug!(%error, "the keeper could not do its work");
        }
        if reaped.elapsed() > REAP && store.engine().check().is_ok() {
            // what they pin is kept, and what they were reading is not reused: a system call for each attachment
            store.engine().shared.slots().reap_dead(&store.engine().live);
            reaped = Instant::now();
        }
    }
    // a store that goes on, as it has connections still, starts another one
    if let (Some((slot, _)), Some(store)) = (own, store.upgrade()) {
        store.engine().shared.slots().release(slot);
    }
}

/// Does once what the thread does, and ends without leaving: for tests of the death in the middle of that.
///
/// # Errors
/// Of the media.
pub fn once(store: &Arc<Store>) -> crate::base::Result<()> {
    turn(store, &mut None)
}

fn turn(store: &Arc<Store>, own: &mut Option<(SlotNo, Box<dyn BaseFile>)>) -> crate::base::Result<()> {
    let engine = store.engine();
    engine.check()?;
    if own.is_none() {
        let slot = engine.shared.slots().claim(engine.live.own(), &engine.live)?;
        *own = Some((slot, engine.base.open()?));
    }
    let Some((slot, base)) = own else { return Ok(()) };
    let head = engine.shared.head();
    if head.clock.durable() < head.clock.published() {
        engine.flush(*slot, head.clock.published())?;
    }
    if is_due(engine) {
        engine.write_homes(*slot, &Which::Logged, false, base.as_ref())?;
        if engine.pages.cold_used() > 0 {
            engine.maintain(*slot, || engine.tidy_cold()).transpose()?;
        }
    }
    if head.cold_unused.load(Ordering::Relaxed) > 0 {
        engine.maintain(*slot, || {
            engine.pages.pump();
            engine.give_cold_back();
        });
    }
    Ok(())
}
