//! The mark in a base file's header (P14), as far as the VFS must know it: to tell our files from stock ones before
//! anything is attached, and to show SQLite a header without it.

/// Bytes of a database file that SQLite reads at open.
pub const HEADER: usize = 100;

/// True if the first bytes of a base file say that nvlite has a region for it.
#[must_use]
pub fn is_marked(header: &[u8]) -> bool {
    header.len() >= 92 && header[18] == 3 && header[19] == 3 && header[72..76] == *b"nvl1"
}

/// What SQLite is shown (P7): rollback-journal format, no mark.
pub fn normalise(header: &mut [u8]) {
    if header.len() >= 20 && header[18] != 0 {
        header[18] = 1;
        header[19] = 1;
    }
    if let Some(reserved) = header.get_mut(72..) {
        let end = reserved.len().min(20);
        reserved[..end].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_seen_and_hidden() {
        let mut header = [0u8; HEADER];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        (header[18], header[19]) = (3, 3);
        header[72..76].copy_from_slice(b"nvl1");
        header[76..92].fill(0xAB);
        header[92..96].fill(0x11);
        assert!(is_marked(&header));
        normalise(&mut header);
        assert!(!is_marked(&header));
        assert_eq!((header[18], header[19]), (1, 1));
        assert!(header[72..92].iter().all(|b| *b == 0) && header[92] == 0x11);
    }
}
