//! A region whose changes have right checksums: see [`nvlite_fuzz::region::forged`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nvlite_fuzz::region::forged(data);
});
