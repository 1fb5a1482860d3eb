//! The time that the processes of one machine share.

/// `CLOCK_MONOTONIC` in nanoseconds. Processes of different time namespaces may disagree: it decides fairness, never safety.
#[cfg(not(loom))]
#[must_use]
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// Under loom time stands still: what must hold, holds without it.
#[cfg(loom)]
#[must_use]
pub fn now() -> u64 {
    1
}
