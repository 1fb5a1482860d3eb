//! Bytes from disk may be anything. Here each parser gets random bytes, and valid ones with bytes changed; it may refuse them but
//! never panic. The same functions are fuzz targets (`fuzz/`).

#[path = "../../fuzz/src/lib.rs"]
mod parsers;

use nvlite_engine::base::{Incarnation, Jci, MediumKind, PageNo, RegionId};
use nvlite_engine::format::journal::Packer;
use nvlite_engine::format::superblock::Superblock;
use proptest::collection::vec;
use proptest::prelude::*;

fn superblock() -> Vec<u8> {
    let one = Superblock {
        page_size: 4096,
        region: RegionId([7; 16]),
        sequence: 9,
        incarnation: Incarnation(3),
        low_water: Jci(100),
        budget: 1 << 20,
        medium: MediumKind::File,
        complete: false,
        pages: 12,
        nonce: [1; 16],
        boot: [2; 16],
        shape: 5,
        mapping_len: 1 << 20,
        mapping: b"/somewhere".to_vec(),
    };
    [one.encode(), one.encode()].concat()
}

/// A body of whole groups.
fn body() -> Vec<u8> {
    let mut packer = Packer::default();
    packer.ranges(PageNo(1), false, [(24_u32, &b"abcd"[..]), (92, &b"efgh"[..])].into_iter());
    packer.ranges(PageNo(77), true, std::iter::once((0_u32, &[9_u8; 300][..])));
    packer.block(PageNo(1 << 20), 12, true);
    (0..300).for_each(|n| packer.block(PageNo(500 + n), 40 + n, n >= 200));
    packer.finish();
    (0..packer.parts()).flat_map(|i| packer.part_mut(i).to_vec()).collect()
}

proptest! {
    #[test]
    fn parsers_take_any_bytes(data in vec(any::<u8>(), 0..9000)) {
        parsers::superblock(&data);
        parsers::journal(&data);
        parsers::entry_mark(&data);
    }

    #[test]
    fn parsers_take_changed_bytes(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 0_usize..9000) {
        for (whole, parse) in [(superblock(), parsers::superblock as fn(&[u8])), (body(), parsers::journal), (body(), parsers::entry_mark)] {
            let mut data = whole;
            for (at, value) in &changes {
                let at = at.index(data.len());
                data[at] = *value;
            }
            parse(&data);
            parse(&data[..cut.min(data.len())]);
        }
    }
}
