//! SQLite's lock levels and the moves between them. SQLite's own sentences (`sqlite3_io_methods`, `os_unix.c`) stand
//! beside the moves; with snapshots the levels above RESERVED exclude nobody and are granted at once.

use crate::sys::*;
use std::ffi::c_int;

/// A lock level, in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i32)]
pub enum Level {
    /// No lock: no snapshot is pinned.
    None = SQLITE_LOCK_NONE,
    /// "Any number of processes may hold a SHARED lock": a snapshot is pinned.
    Shared = SQLITE_LOCK_SHARED,
    /// "A single process may hold a RESERVED lock at any time": the writer lock.
    Reserved = SQLITE_LOCK_RESERVED,
    /// "A PENDING lock is never requested explicitly".
    Pending = SQLITE_LOCK_PENDING,
    /// "An EXCLUSIVE lock precludes all other locks" on stock files; here readers are on snapshots and stay.
    Exclusive = SQLITE_LOCK_EXCLUSIVE,
}

/// What a move does to the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: the level is held, or its holder needs no more than it has.
    Nothing,
    /// Pin a snapshot.
    Pin,
    /// Take the writer lock.
    Write,
    /// Give the writer lock back, drop the write set.
    EndWrite,
    /// Drop the snapshot (and the writer lock, if held).
    EndRead,
}

/// Legal moves of xLock: from, to, what to do.
const UP: &[(Level, Level, Step)] = &[
    // "It is always acquired before any other lock": NONE goes to SHARED only.
    (Level::None, Level::Shared, Step::Pin),
    // "A SHARED lock is held before a RESERVED lock is requested."
    (Level::Shared, Level::Reserved, Step::Write),
    // "SHARED -> EXCLUSIVE: only a hot-journal rollback"; it writes, so it is the writer.
    (Level::Shared, Level::Exclusive, Step::Write),
    // "RESERVED -> (PENDING) -> EXCLUSIVE"
    (Level::Reserved, Level::Exclusive, Step::Nothing),
    (Level::Pending, Level::Exclusive, Step::Nothing),
];

/// Legal moves of xUnlock: "The lock is lowered to SHARED or NONE."
const DOWN: &[(Level, Level, Step)] = &[
    (Level::Exclusive, Level::Shared, Step::EndWrite),
    (Level::Pending, Level::Shared, Step::EndWrite),
    (Level::Reserved, Level::Shared, Step::EndWrite),
    (Level::Exclusive, Level::None, Step::EndRead),
    (Level::Pending, Level::None, Step::EndRead),
    (Level::Reserved, Level::None, Step::EndRead),
    (Level::Shared, Level::None, Step::EndRead),
];

impl Level {
    /// From SQLite's number.
    #[must_use]
    pub fn from_c(level: c_int) -> Option<Level> {
        [Level::None, Level::Shared, Level::Reserved, Level::Pending, Level::Exclusive]
            .into_iter()
            .find(|l| *l as c_int == level)
    }

    /// What xLock to `to` does; `None` if SQLite never asks that.
    #[must_use]
    pub fn raise(self, to: Level) -> Option<Step> {
        // "If the file already holds an equal or stronger lock, xLock is a no-op."
        if self >= to { Some(Step::Nothing) } else { find(UP, self, to) }
    }

    /// What xUnlock to `to` does; `None` if SQLite never asks that.
    #[must_use]
    pub fn lower(self, to: Level) -> Option<Step> {
        // "If the lock is already at or below the requested level, xUnlock is a no-op."
        if self <= to { Some(Step::Nothing) } else { find(DOWN, self, to) }
    }
}

fn find(table: &[(Level, Level, Step)], from: Level, to: Level) -> Option<Step> {
    table.iter().find(|row| row.0 == from && row.1 == to).map(|row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves() {
        assert_eq!(Level::None.raise(Level::Shared), Some(Step::Pin));
        assert_eq!(Level::None.raise(Level::Reserved), None);
        assert_eq!(Level::Shared.raise(Level::Reserved), Some(Step::Write));
        assert_eq!(Level::Exclusive.raise(Level::Shared), Some(Step::Nothing));
        assert_eq!(Level::Exclusive.lower(Level::Shared), Some(Step::EndWrite));
        assert_eq!(Level::Exclusive.lower(Level::Reserved), None);
        assert_eq!(Level::None.lower(Level::Shared), Some(Step::Nothing));
    }
}
