//! What an application that knows SQLite puts before its write transactions: the language's own mutex, or one that serves
//! in the order of arrival.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// One of the two.
#[derive(Debug)]
pub enum WriteQueue {
    /// The standard library's mutex: whoever is there when it is released takes it.
    Mutex(Mutex<()>),
    /// Nobody overtakes.
    Fair(FairQueue),
}

/// The right to write; given on when dropped.
#[derive(Debug)]
pub struct Turn<'q> {
    _held: Held<'q>,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held until dropped")]
enum Held<'q> {
    Mutex(MutexGuard<'q, ()>),
    Fair(FairTurn<'q>),
}

impl WriteQueue {
    /// Waits for the caller's turn.
    pub fn enter(&self) -> Turn<'_> {
        let held = match self {
            WriteQueue::Mutex(mutex) => Held::Mutex(mutex.lock().unwrap_or_else(PoisonError::into_inner)),
            WriteQueue::Fair(queue) => Held::Fair(queue.enter()),
        };
        Turn { _held: held }
    }
}

/// The queue. Its lock is handed from holder to longest waiter, so nobody overtakes.
#[derive(Debug, Default)]
pub struct FairQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    granted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FairTurn<'q>(&'q FairQueue);

impl FairQueue {
    fn enter(&self) -> FairTurn<'_> {
        let mut state = self.lock();
        if !state.held {
            state.held = true;
            return FairTurn(self);
        }
        let granted = Arc::new(AtomicBool::new(false));
        state.waiting.push_back(Waiter { thread: std::thread::current(), granted: Arc::clone(&granted) });
        drop(state);
        while !granted.load(Ordering::Acquire) {
            std::thread::park();
        }
        FairTurn(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FairTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        match state.waiting.pop_front() {
            Some(next) => {
                drop(state);
                next.granted.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => state.held = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waiters_are_served_in_order_of_arrival() {
        let queue = FairQueue::default();
        let order = Mutex::new(Vec::new());
        let first = queue.enter();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    let _turn = queue.enter();
                    order.lock().expect("not poisoned").push(number);
                });
                while queue.lock().waiting.len() <= number {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().expect("not poisoned"), [0, 1, 2, 3]);
        assert!(!queue.lock().held);
    }
}
