#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nvlite_fuzz::region::damaged(data);
});
