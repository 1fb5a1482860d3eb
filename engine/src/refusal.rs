//! P11: SQLite's busy handler sleeps through the VFS, on the thread whose connection was just refused the writer lock.
//! The refusal is remembered per thread, so that this sleep, and no other, becomes a place in the queue.

use crate::shm::{Holder, SlotNo};
use crate::store::Store;
use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

type Refused = Option<(Weak<Store>, SlotNo, Holder)>;

thread_local! {
    static REFUSED: RefCell<Refused> = const { RefCell::new(None) };
}

/// What `f` makes of this thread's refusal; `None` if the thread is about to end. A connection may be closed by the destructor
/// of another thread-local, when this one is gone.
fn with<T>(f: impl FnOnce(&mut Refused) -> T) -> Option<T> {
    REFUSED.try_with(|r| f(&mut r.borrow_mut())).ok()
}

/// Notes that this thread's connection was refused.
pub fn record(store: &Arc<Store>, slot: SlotNo) {
    let holder = store.engine().shared.slots().holder(slot);
    with(|r| *r = Some((Arc::downgrade(store), slot, holder)));
}

/// Forgets it: a call of this thread was served, and a later sleep is none of the busy handler's. An unlock says nothing: SQLite
/// unlocks before it calls that.
pub fn forget() {
    with(|r| *r = None);
}

/// Forgets it if it is this connection's, which ends.
pub fn forget_slot(store: &Arc<Store>, slot: SlotNo) {
    with(|r| {
        if r.as_ref().is_some_and(|(s, no, _)| *no == slot && s.as_ptr() == Arc::as_ptr(store)) {
            *r = None;
        }
    });
}

/// Waits in the queue if this thread was refused last, else sleeps.
pub fn sleep(time: Duration) {
    let refused = with(Option::take).flatten();
    if let Some((store, slot, holder)) = refused
        && let Some(store) = store.upgrade()
        && !store.engine().forked()
    {
        let engine = store.engine();
        let slots = engine.shared.slots();
        if slots.holder(slot) == holder {
            engine.shared.head().writer.wait(slots, slot, time, &engine.live);
            return;
        }
    }
    std::thread::sleep(time);
}
