//! Which durability a commit is to have (P5): by what SQLite does, not by the pragmas that the VFS sees. It tells of a
//! pragma before SQLite obeys, or does not: inside a transaction, when a schema cannot be read, out of memory.

use nvlite_engine::Durability;

/// What was seen of the commit in progress.
#[derive(Default)]
pub(super) struct Tracker {
    /// xSync came since the last `SQLITE_FCNTL_SYNC`: not with OFF.
    synced: bool,
    /// The journal was cut to nothing since then, and that was not synced: with NORMAL, and with OFF. At FULL SQLite syncs
    /// it (`journal_mode=TRUNCATE`), as a journal that comes back with the power would undo the commit.
    journal_unsynced: bool,
}

impl Tracker {
    /// `SQLITE_FCNTL_SYNC`: the commit is prepared.
    pub fn prepared(&mut self) {
        *self = Tracker::default();
    }

    /// xSync of the database.
    pub fn synced(&mut self) {
        self.synced = true;
    }

    /// xTruncate of the journal to nothing.
    pub fn journal_cut(&mut self) {
        self.journal_unsynced = true;
    }

    /// xSync of the journal.
    pub fn journal_synced(&mut self) {
        self.journal_unsynced = false;
    }

    /// How long `SQLITE_FCNTL_COMMIT_PHASETWO` waits. In doubt `Full`: in other journal modes NORMAL does not show.
    pub fn durability(&self) -> Durability {
        if !self.synced || self.journal_unsynced { Durability::Process } else { Durability::Full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_in_doubt_full() {
        let mut tracker = Tracker::default();
        tracker.journal_cut();
        tracker.prepared();
        assert_eq!(tracker.durability(), Durability::Process, "OFF: no xSync");
        tracker.synced();
        assert_eq!(tracker.durability(), Durability::Full, "another journal mode, or no journal");
        tracker.journal_cut();
        assert_eq!(tracker.durability(), Durability::Process, "NORMAL");
        tracker.journal_synced();
        assert_eq!(tracker.durability(), Durability::Full);
        tracker.prepared();
        assert_eq!(tracker.durability(), Durability::Process);
    }
}
