//! Writes as a file takes them: of any length, at any place, over any cut. SQLite writes whole pages nearly always, but a
//! transaction that changes the page size does not; and what the log keeps of a write must say the same after a crash.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability::Full, MediumKind, MediumKind::Dax, MediumKind::File, Session};
use nvlite_tests::rules::{PAGE, Rig, commit, offset, put_header};
use nvlite_tests::sim::{Policy, mix};

const BOTH: [MediumKind; 2] = [Dax, File];
/// Two things that may be so or not.
const CASES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// All bytes behind the header.
fn bytes(s: &mut Session) -> Vec<u8> {
    s.begin_read().unwrap();
    let mut all = vec![0; s.size().unwrap() as usize];
    let there = s.read(0, &mut all).unwrap();
    assert_eq!(there, all.len());
    s.end_read();
    all.split_off(100)
}

fn finish(s: &mut Session) {
    s.prepare().unwrap();
    s.commit(Full).unwrap();
    s.end_write();
    s.end_read();
}

/// As a file: its bytes, of which the first hundred are the header, which is not looked at.
struct Model(Vec<u8>);

impl Model {
    /// A header with nothing behind it in its page.
    fn header(&mut self, s: &mut Session, pages: u32) {
        put_header(s, pages).unwrap();
        self.0.resize(self.0.len().max(PAGE), 0);
        self.0[100..PAGE].fill(0);
    }

    fn write(&mut self, s: &mut Session, at: usize, bytes: &[u8]) {
        s.write(at as u64, bytes).unwrap();
        self.0.resize(self.0.len().max((at + bytes.len()).next_multiple_of(PAGE)), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn cut(&mut self, s: &mut Session, pages: u32) {
        s.truncate(offset(pages + 1)).unwrap();
        self.0.truncate(offset(pages + 1) as usize);
    }

    fn check(&self, s: &mut Session, what: &str) {
        assert!(bytes(s) == self.0[100..], "{what}");
    }
}

#[test]
fn p1_a_write_of_any_length_at_any_place_is_kept() {
    // Failure: what a write leaves of the last page that it touches, or of a page it crosses into, is lost or is another's.
    for kind in BOTH {
        let mut rig = Rig::new(kind);
        let mut store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 12, 2..=12, 7, Full).unwrap();
        let mut model = Model(vec![0; 100]);
        model.0.extend(bytes(&mut s));
        for turn in 0..60 {
            let lot = |n: u64, below: u64| mix(turn, n) % below;
            s.begin_read().unwrap();
            s.begin_write().unwrap();
            let before = model.0.clone();
            let pages = 4 + lot(0, 9) as u32;
            model.header(&mut s, pages);
            if lot(1, 3) == 0 {
                model.cut(&mut s, 2 + lot(2, 8) as u32);
            }
            for n in 10..20 {
                let at = 100 + lot(n, offset(pages + 1) - 101) as usize;
                let most =
                    (offset(pages + 1) as usize - at).min([1, 3, 17, PAGE + 1, 3 * PAGE][lot(n + 10, 5) as usize]);
                let len = 1 + lot(n + 20, most as u64) as usize;
                let new: Vec<u8> = (0..len as u64).map(|i| mix(turn * 31 + n, i) as u8).collect();
                model.write(&mut s, at, &new);
                let (from, mut got) = (at.saturating_sub(5), vec![0; len + 10]);
                let there = s.read(from as u64, &mut got).unwrap();
                assert!(
                    got[..there] == model.0[from..from + there] || from < 100,
                    "{kind:?}, turn {turn}: read in between"
                );
            }
            model.0.resize(offset(pages + 1) as usize, 0);
            if lot(3, 4) == 0 {
                s.end_write();
                s.end_read();
                model.0 = before;
            } else {
                finish(&mut s);
            }
            model.check(&mut s, &format!("{kind:?}, turn {turn}"));
            if turn % 10 == 9 {
                drop((s, store));
                rig = rig.crash(if turn % 20 == 9 { Policy::Oldest } else { Policy::Newest });
                store = rig.open().unwrap();
                s = store.session().unwrap();
                model.check(&mut s, &format!("{kind:?}, turn {turn}, recovered"));
            }
        }
    }
}

#[test]
fn p3_what_a_transaction_cuts_off_is_gone_when_it_grows_again() {
    // Failure: the committed content, or the transaction's own from before the cut, shines through what is written after it, at
    // once or after a crash. A cut after a preparation takes effect later.
    for (kind, home, prepared) in BOTH.into_iter().flat_map(|kind| CASES.map(|(home, prepared)| (kind, home, prepared)))
    {
        let case = format!("{kind:?}, home {home}, prepared {prepared}");
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 8, 2..=8, 7, Full).unwrap();
        if home {
            store.checkpoint().unwrap();
        }
        let mut model = Model(vec![0; 100]);
        model.0.extend(bytes(&mut s));
        s.begin_write().unwrap();
        model.header(&mut s, 8);
        model.write(&mut s, offset(5) as usize + 7, b"own");
        if prepared {
            s.prepare().unwrap();
        }
        model.cut(&mut s, 2);
        model.write(&mut s, offset(5) as usize + 300, b"new");
        let mut got = vec![1; PAGE];
        assert_eq!(s.read(offset(4), &mut got).unwrap(), PAGE);
        assert!(got.iter().all(|b| *b == 0), "{case}: a page that was not written since");
        assert!(s.fetch(offset(4), PAGE).unwrap().is_none(), "{case}: a pointer to what is gone");
        model.0.resize(offset(9) as usize, 0);
        finish(&mut s);
        model.check(&mut s, &case);
        drop((s, store));
        for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
            model.check(&mut after.open().unwrap().session().unwrap(), &format!("{case}, recovered"));
        }
    }
}

#[test]
fn p3_pages_of_another_size_have_nothing_of_what_was_written_before() {
    // Failure: a transaction that fixed a page size and went away has left blocks behind, and what the next one writes, in
    // pages of another size, is taken for a difference against them.
    for kind in BOTH {
        let rig = Rig::new(kind);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        // so large that it goes to shadow blocks, of 512 bytes each
        s.begin_write().unwrap();
        for page in 2..2000 {
            s.write(page * 512, &[0xAA; 512]).unwrap();
        }
        s.end_write();
        s.end_read();
        // as a backup writes that makes pages larger: in units of the old size, the header last
        s.begin_write().unwrap();
        for unit in 4..9 {
            s.write(unit * 512, &[unit as u8; 512]).unwrap();
        }
        s.write(6001, b"odd").unwrap();
        put_header(&mut s, 6).unwrap();
        finish(&mut s);
        let mut want = vec![0; 6 * PAGE];
        (4..9).for_each(|unit| want[unit * 512..(unit + 1) * 512].fill(unit as u8));
        want[6001..6004].copy_from_slice(b"odd");
        let want = want.split_off(100);
        assert!(bytes(&mut s) == want, "{kind:?}");
        drop((s, store));
        for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
            let store = after.open().unwrap();
            assert!(bytes(&mut store.session().unwrap()) == want, "{kind:?}: recovered");
        }
    }
}
