//! Two superblocks: see [`nvlite_fuzz::superblock`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nvlite_fuzz::superblock(data);
});
