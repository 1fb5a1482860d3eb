//! The one thread of an attachment, on `file` only: it bounds the time until commits below FULL are flushed (P5), and
//! retires the log before a writer has to.

use crate::engine::Engine;
use crate::medium::BaseFile;
use crate::retire::Which;
use crate::shm::SlotNo;
use crate::store::Store;
use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks, and so how long a commit below FULL may stay unflushed.
const PERIOD: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Wake {
    wanted: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

/// The thread.
pub struct Keeper {
    wake: Arc<Wake>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts it, where the medium needs one.
    pub fn start(engine: &Engine, store: Weak<Store>) -> Option<Keeper> {
        if engine.mapped() {
            return None;
        }
        let wake = Arc::new(Wake::default());
        let theirs = wake.clone();
        let run = move || run(&theirs, &store);
        match std::thread::Builder::new().name("nvlite-keeper".into()).spawn(run) {
            Ok(thread) => Some(Keeper { wake, thread }),
            Err(error) => {
                tracing::warn!(%error, "no keeper thread: writers retire the log themselves");
                None
            }
        }
    }

    /// Wakes it if the log is to be retired.
    pub fn nudge(&self, engine: &Engine) {
        if is_due(engine) && !self.wake.wanted.swap(true, StdOrdering::AcqRel) {
            self.wake.bell.notify_one();
        }
    }

    /// Ends it. In a forked child there is no such thread.
    pub fn stop(self, forked: bool) {
        if forked {
            return;
        }
        self.wake.stop.store(true, StdOrdering::Release);
        self.wake.bell.notify_one();
        // it may be the keeper itself that drops the store last
        if self.thread.thread().id() != std::thread::current().id() {
            let _ = self.thread.join();
        }
    }
}

/// True if half of the log is used: the later it is retired, the more often were its pages changed that are written once,
/// but what is left has to last for the writers meanwhile.
fn is_due(engine: &Engine) -> bool {
    engine.ring_used() > engine.layout.ring_slots / 2
}

fn run(wake: &Wake, store: &Weak<Store>) {
    let mut own: Option<(SlotNo, Box<dyn BaseFile>)> = None;
    loop {
        let guard = wake.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !wake.wanted.load(StdOrdering::Acquire) && !wake.stop.load(StdOrdering::Acquire) {
            drop(wake.bell.wait_timeout(guard, PERIOD).unwrap_or_else(PoisonError::into_inner));
        } else {
            drop(guard);
        }
        if wake.stop.load(StdOrdering::Acquire) {
            // a store that goes on, as it has connections still, starts another one
            if let (Some((slot, _)), Some(store)) = (own, store.upgrade()) {
                store.engine().shared.slots().release(slot);
            }
            return;
        }
        wake.wanted.store(false, StdOrdering::Release);
        let Some(store) = store.upgrade() else { continue };
        if let Err(error) = turn(&store, &mut own) {
            tracing::debug!(%error, "the keeper could not do its work");
        }
    }
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
    Ok(())
}
