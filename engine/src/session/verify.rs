//! A database that is open, held against its checksums.

use super::Session;
use crate::base::{Error, Result};
use crate::verify::Damage;
use std::time::{Duration, Instant};

/// Blocks verified at a time: some ten microseconds of small pages, a millisecond of the largest in the cold file.
const VERIFIED: u32 = 32;
/// How long to wait for a writer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Session {
    /// Compares what pages have in memory and in the cold file with their checksums, a few blocks at a time between the commits
    /// of others, outside a transaction. Answers what does not match.
    ///
    /// # Errors
    /// `Busy` in a transaction, or if a writer keeps the lock for long; those of the files.
    pub fn verify(&mut self) -> Result<Vec<Damage>> {
        self.store.engine().check()?;
        if self.holding || self.pin.is_some() {
            return Err(Error::Busy("a transaction is open"));
        }
        self.open_base()?;
        let (mut found, mut fast, mut cold) = (Vec::new(), 0, 0);
        loop {
            self.wait_for_lock()?;
            let (engine, base) = self.parts();
            let (all_fast, all_cold) = engine.to_verify();
            let (next_fast, next_cold) = ((fast + VERIFIED).min(all_fast), (cold + VERIFIED).min(all_cold));
            let done = if fast < next_fast {
                engine.verify_fast(std::mem::replace(&mut fast, next_fast)..next_fast, base, &mut found)
            } else {
                engine.verify_cold(std::mem::replace(&mut cold, next_cold)..next_cold, base, &mut found)
            };
            self.release_lock();
            done?;
            if fast >= all_fast && cold >= all_cold {
                return Ok(found);
            }
        }
    }

    /// Takes the writer lock, in turn with those who wait for it.
    fn wait_for_lock(&mut self) -> Result<()> {
        let engine = self.store.engine();
        let (head, slots, began) = (engine.shared.head(), engine.shared.slots(), Instant::now());
        while !engine.hold(self.slot)? {
            if began.elapsed() > PATIENCE {
                return Err(Error::Busy("another connection is writing"));
            }
            head.writer.note_refusal(slots, self.slot);
            head.writer.wait(slots, self.slot, Duration::from_millis(10), &engine.live);
        }
        self.holding = true;
        Ok(())
    }
}
