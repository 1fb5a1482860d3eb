//! The write set of a connection: what xWrite and xTruncate put there.

use super::{PAGE_ONE, Session};
use crate::base::{Error, PageNo, Result};
use crate::format::mark;
use crate::writeset::Written;

impl Session {
    /// xTruncate: in a write transaction never fails, even if the region has, as SQLite would skip the commit, which tells
    /// that; the size is settled at commit (P1).
    ///
    /// # Errors
    /// `Forked`; outside a write transaction `Failed` and `LockLost`.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        if self.store.engine().forked() {
            return Err(Error::Forked);
        }
        if !(self.writing && self.holding) {
            self.may_write()?;
        }
        let page_size = u64::from(self.known_page_size().unwrap_or(4096));
        let end = u32::try_from(size.div_ceil(page_size)).unwrap_or(u32::MAX);
        self.set.end = Some(end);
        self.set.truncated = true;
        self.set.kept = Some(self.set.kept.map_or(end, |kept| kept.min(end)));
        if self.prepared.is_some() {
            self.cut = self.cut.min(end); // the record may name what lies beyond
        } else {
            self.drop_beyond(end);
        }
        Ok(())
    }

    /// A preparation counts no more: what its record names may change.
    pub(super) fn unprepare(&mut self) {
        if self.prepared.take().is_some() {
            self.drop_beyond(self.cut);
        }
        self.cut = u32::MAX;
    }

    fn drop_beyond(&mut self, end: u32) {
        let cut: Vec<PageNo> = self.set.iter().map(|(p, _)| p).filter(|p| p.0 > end).collect();
        for page in cut {
            if let Some(Written::Shadow(v)) = self.set.remove(page) {
                self.store.engine().pages.give_back(v);
            }
        }
    }

    /// A write or cut without the writer lock (P6): taken again if this session's own last commit is still the newest.
    fn may_write(&mut self) -> Result<()> {
        self.store.engine().check()?;
        if self.writing && self.holding {
            return Ok(());
        }
        self.store.check_writable()?;
        self.begin_read()?;
        let newest = self.store.engine().shared.published();
        if self.last_commit != newest || self.pin != Some(newest) {
            return Err(Error::LockLost);
        }
        self.take_lock().map_err(|_| Error::LockLost)?;
        self.writing = true;
        Ok(())
    }

    /// xWrite: any offset and length, into the private write set; a preparation counts no more. Without a write transaction it
    /// re-takes the writer lock if the session's own last commit is still the newest (P6), else `LockLost`.
    ///
    /// # Errors
    /// As said; `Full` if a transaction too large for memory finds no room in the cold file.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.may_write()?;
        self.unprepare();
        self.tell_lent(); // room may have to be made
        if self.known_page_size().is_none() {
            let n = bytes.len() as u64;
            let shaped = n.is_power_of_two() && (512..=65536).contains(&n) && offset.is_multiple_of(n);
            self.provisional = if shaped { n as u32 } else { 4096 };
        }
        let done = self.write_pages(offset, bytes);
        self.fence_streamed();
        done?;
        self.follow_header()
    }

    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let page_size = self.known_page_size().unwrap_or(4096);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let place = PageNo::at(at, page_size).ok_or_else(|| self.too_far(at))?;
            let (page, within) = (place.0, place.1 as usize);
            let n = (bytes.len() - done).min(page_size as usize - within);
            self.write_in_page(page, page_size, within, &bytes[done..done + n])?;
            self.set.end = Some(self.set.end.unwrap_or(0).max(page.0));
            done += n;
        }
        Ok(())
    }

    fn too_far(&self, at: u64) -> Error {
        let cause = format!("byte {at} lies behind the last page that a database can have");
        Error::Full { path: self.store.engine().base.path().to_owned(), what: "a page", cause }
    }

    /// While the database has no page size, the write set is kept in pages of the size that its own page 1 says.
    fn follow_header(&mut self) -> Result<()> {
        if self.page_size().is_some() || self.set.get(PAGE_ONE).is_none() {
            return Ok(());
        }
        let mut header = [0u8; mark::HEADER];
        self.read_in_page(PAGE_ONE, 0, &mut header)?;
        match mark::page_size(&header) {
            Some(size) if size != self.provisional => self.repage(size),
            _ => Ok(()),
        }
    }

    pub(super) fn write_in_page(&mut self, page: PageNo, page_size: u32, within: usize, bytes: &[u8]) -> Result<()> {
        let mut content = std::mem::take(&mut self.scratch);
        let normal = page != PAGE_ONE || mark::is_normal(bytes);
        let result = if bytes.len() == page_size as usize && normal {
            self.put_page(page, bytes)
        } else {
            content.resize(page_size as usize, 0);
            let read = if bytes.len() < page_size as usize { self.read_in_page(page, 0, &mut content) } else { Ok(()) };
            content[within..within + bytes.len()].copy_from_slice(bytes);
            if page == PAGE_ONE {
                mark::normalise(0, &mut content);
            }
            read.and_then(|()| self.put_page(page, &content))
        };
        self.scratch = content;
        result
    }

    /// Keeps what `content` changes of `page`.
    fn put_page(&mut self, page: PageNo, content: &[u8]) -> Result<()> {
        if page != PAGE_ONE && self.store.too_large(self.set.bytes(), self.set.len()) {
            self.settle_page_size()?;
            return self.put_shadow(page, content);
        }
        let fresh = page.0 > self.committed_pages()?;
        let before = if fresh {
            self.set.put(page, None, content)
        } else {
            // by field, so that the write set stays free to be changed
            let (engine, base) = (self.store.engine(), self.base.as_deref().expect("opened by begin_read"));
            let Some(block) = engine.bring_in_or_make_room(page, &self.set, base)? else {
                return self.put_shadow(page, content);
            };
            // the newest version is stable under the writer lock
            self.set.put(page, Some(engine.pages.geo().arena.view(block)), content)
        };
        if let Some(Written::Shadow(v)) = before {
            self.store.engine().pages.give_back(v);
        }
        Ok(())
    }

    /// A page that the transaction adds without writing it.
    pub(super) fn put_zeros(&mut self, page: PageNo) -> Result<()> {
        let mut content = std::mem::take(&mut self.scratch);
        content.clear();
        content.resize(self.page_size().unwrap_or(4096) as usize, 0);
        let result = self.put_page(page, &content);
        self.scratch = content;
        result
    }

    /// Writes the whole page to a block of its own, of which the record will hold the number only.
    pub(super) fn put_shadow(&mut self, page: PageNo, content: &[u8]) -> Result<()> {
        let (engine, base) = self.parts();
        let (v, is_new) = match self.set.get(page) {
            Some(Written::Shadow(v)) => (v, false),
            _ => (engine.new_shadow(page, &self.set, base)?, true),
        };
        let written = engine.write_shadow(v, content);
        if is_new && written.is_err() {
            engine.pages.give_back(v);
        }
        let streamed = written?;
        self.streamed |= streamed;
        self.set.put_shadow(page, v);
        Ok(())
    }
}
