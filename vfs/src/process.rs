//! What a process has one of. A forked child has a copy of its parent's memory, with every lock as it was at that moment: one
//! that another thread held is held there for ever. So a child takes no lock of its parent's, but begins with new ones.
#![allow(unsafe_code)]

use nvlite_engine::store::ForkGuard;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value of each process, made when it is first asked for.
pub struct PerProcess<T> {
    current: AtomicPtr<Owned<T>>,
}

struct Owned<T> {
    /// `None` where the kernel has no page for one: then nothing can be attached either.
    guard: Option<ForkGuard>,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value. In a new process `make` makes it, of the parent's if there is one, of which no lock may be waited
    /// for. No system call once it is there.
    pub fn get(&'static self, make: impl Fn(Option<&'static T>) -> T) -> &'static T {
        loop {
            let seen = self.current.load(Ordering::Acquire);
            // SAFETY: null, or published below and never freed from then on, nor changed but through `T`, which is Sync.
            let before = unsafe { seen.as_ref() };
            if let Some(owned) = before.filter(|owned| !owned.guard.as_ref().is_some_and(ForkGuard::in_child)) {
                return &owned.value;
            }
            let value = make(before.map(|owned| &owned.value));
            let fresh = Box::into_raw(Box::new(Owned { guard: ForkGuard::new().ok(), value }));
            if self.current.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: it was not published; nobody else has the pointer.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// Runs something in a forked child, which a signal ends if it waits for ever; true if it answers so.
    pub(crate) fn in_child(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing that another thread of the test may hold a lock of for long (the allocator forks in
        // order), and leaves by _exit.
        unsafe {
            match libc::fork() {
                0 => {
                    libc::alarm(20);
                    libc::_exit(i32::from(!child()));
                }
                pid => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                    status == 0
                }
            }
        }
    }

    #[test]
    fn p13_a_child_begins_with_locks_of_its_own() {
        static ONE: PerProcess<Mutex<i32>> = PerProcess::new();
        let make = |before: Option<&'static Mutex<i32>>| {
            Mutex::new(before.map_or(1, |before| before.try_lock().map_or(-1, |value| *value)))
        };
        let value = || *ONE.get(make).lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((value(), value()), (1, 1));
        assert!(in_child(|| value() == 1 && in_child(|| value() == 1)));
        let held = ONE.get(make).lock();
        assert!(in_child(|| value() == -1));
        drop(held);
        assert_eq!(value(), 1, "the parent has kept its own");
    }
}
