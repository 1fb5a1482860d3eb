//! Which durability a commit is to have (P5).

use crate::sys::SQLITE_OK;
use nvlite_engine::Durability;

/// What was seen of `PRAGMA synchronous` and of the commit in progress.
#[derive(Default)]
pub(super) struct Tracker {
    /// NORMAL was asked for outside a transaction, while the database could be read: else SQLite does not obey.
    normal: bool,
    /// xSync came since the last `SQLITE_FCNTL_SYNC`.
    synced: bool,
}

impl Tracker {
    /// `SQLITE_FCNTL_SYNC`: the commit is prepared; with `synchronous=OFF` no xSync follows.
    pub fn prepared(&mut self) {
        self.synced = false;
    }

    /// xSync.
    pub fn synced(&mut self) -> i32 {
        self.synced = true;
        SQLITE_OK
    }

    /// `PRAGMA synchronous = value`, outside a transaction (inside one SQLite refuses it, but the VFS sees it); one that
    /// [`lowers`] durability only if the database can be read.
    pub fn pragma(&mut self, value: &str) {
        self.normal = lowers(value);
    }

    /// How long `SQLITE_FCNTL_COMMIT_PHASETWO` waits. In doubt `Full`: a pragma that says OFF while xSync came is in doubt.
    pub fn durability(&self) -> Durability {
        if !self.synced || self.normal { Durability::Process } else { Durability::Full }
    }
}

/// Whether a pragma makes commits wait less. OFF does not by itself: if SQLite obeys, no xSync comes.
pub(super) fn lowers(value: &str) -> bool {
    level(value) == NORMAL
}

const OFF: u8 = 0;
const NORMAL: u8 = 1;

/// As SQLite parses it (`getSafetyLevel` and the pragma's own arithmetic): 0 OFF, 1 NORMAL, 2 FULL, 3 EXTRA and above.
fn level(value: &str) -> u8 {
    let number = if value.starts_with(|c: char| c.is_ascii_digit()) {
        let digits = value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
        // sqlite3Atoi answers 0 for what does not fit 32 bits, and the level is its low byte.
        digits.parse::<i32>().unwrap_or(0).to_le_bytes()[0]
    } else {
        match value.to_ascii_lowercase().as_str() {
            "off" | "no" | "false" => 0,
            "full" => 2,
            "extra" => 3,
            // "on", "yes", "true", "normal", and every word that SQLite does not know.
            _ => 1,
        }
    };
    match number.wrapping_add(1) & 7 {
        0 => OFF,
        masked => masked - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_levels_are_parsed_as_sqlite_parses_them() {
        for (text, expected) in [
            ("OFF", 0),
            ("0", 0),
            ("normal", 1),
            ("1", 1),
            ("on", 1),
            ("nonsense", 1),
            ("FULL", 2),
            ("2", 2),
            ("extra", 3),
            ("3", 3),
            ("7", 0),
            ("9", 1),
            ("257", 1),
        ] {
            assert_eq!(level(text), expected, "{text}");
        }
    }

    #[test]
    fn p5_in_doubt_full() {
        let mut tracker = Tracker::default();
        tracker.prepared();
        assert_eq!(tracker.durability(), Durability::Process, "OFF: no xSync");
        tracker.synced();
        assert_eq!(tracker.durability(), Durability::Full);
        tracker.pragma("normal");
        assert_eq!(tracker.durability(), Durability::Process);
        tracker.pragma("off");
        assert_eq!(tracker.durability(), Durability::Full, "xSync came although the pragma said OFF");
        tracker.prepared();
        assert_eq!(tracker.durability(), Durability::Process);
    }
}
