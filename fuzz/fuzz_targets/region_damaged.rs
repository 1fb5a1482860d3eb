//! A region with one damaged place: see [`nvlite_fuzz::region::damaged`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nvlite_fuzz::region::damaged(data);
});
