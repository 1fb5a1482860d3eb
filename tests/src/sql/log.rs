//! SQLite's error log, collected.

use rusqlite::ffi;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;

static SAID: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

extern "C" fn hear(_: *mut c_void, code: c_int, text: *const c_char) {
    // SAFETY: SQLite passes a string that ends with a zero.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let own = std::thread::current().id();
    match (text.strip_prefix(nvlite_vfs::LOG_GOES_ON), said.iter_mut().rfind(|(thread, _)| *thread == own)) {
        (Some(more), Some((_, line))) => *line += more,
        _ => said.push((own, format!("({code}) {text}"))),
    }
}

/// Collects from here on. To be called before the process opens its first connection.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hear: extern "C" fn(*mut c_void, c_int, *const c_char) = hear;
        // SAFETY: the option takes a function of this type and a pointer that it is given back; SQLite is not initialised yet.
        let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOG, hear, std::ptr::null_mut::<c_void>()) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite is already in use");
    });
}

/// Lines so far that contain `text`.
pub fn lines(text: &str) -> Vec<String> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.iter().map(|(_, line)| line).filter(|line| line.contains(text)).cloned().collect()
}

/// That one line names a file whose path begins with `file` (so also its side files), and one of `causes`, in lower case.
///
/// # Errors
/// What was said about that file instead.
pub fn told(file: &Path, causes: &[&str]) -> Result<(), String> {
    let file = file.display().to_string();
    let about = lines(&file);
    if about.iter().any(|line| causes.iter().any(|cause| line.to_lowercase().contains(cause))) {
        return Ok(());
    }
    Err(format!("the log has none of {causes:?} about {file}: {about:?}"))
}
