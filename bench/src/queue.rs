//! A first-come-first-served mutex: what an application that knows SQLite puts before its write transactions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

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

/// The right to write; given on when dropped.
#[derive(Debug)]
pub struct Turn<'q>(&'q FairQueue);

impl FairQueue {
    /// Waits for the caller's turn.
    pub fn enter(&self) -> Turn<'_> {
        let mut state = self.lock();
        if !state.held {
            state.held = true;
            return Turn(self);
        }
        let granted = Arc::new(AtomicBool::new(false));
        state.waiting.push_back(Waiter { thread: std::thread::current(), granted: Arc::clone(&granted) });
        drop(state);
        while !granted.load(Ordering::Acquire) {
            std::thread::park();
        }
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
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
