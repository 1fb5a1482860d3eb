//! Where results go. Files are opened before the run, so that a path that cannot be written is noticed at once, and
//! filled after it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file to be filled; one that was made for this and was not filled is removed.
pub struct Output {
    path: PathBuf,
    file: File,
    to_remove: bool,
}

impl Output {
    /// Opens or makes the file; what is in it stays until it is filled.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, to_remove) = match File::options().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (File::options().write(true).create(true).truncate(false).open(path), false)
            }
            made => (made, true),
        };
        let file = file.map_err(|error| Error::io(path, error))?;
        Ok(Self { path: path.to_owned(), file, to_remove })
    }

    /// Replaces what is in it.
    pub fn fill(mut self, text: &str) -> Result<()> {
        let written = replace(&mut self.file, text).map_err(|error| Error::io(&self.path, error));
        self.to_remove &= written.is_err();
        written
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.to_remove {
            // Best effort: the run has failed, and says why.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn replace(file: &mut File, text: &str) -> std::io::Result<()> {
    // A pipe or a terminal has no length.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(text.as_bytes())
}

/// Prints `text`. A reader that has gone away, as `head` does, has what it wanted.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io(Path::new("standard output"), error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_when_it_is_filled_and_otherwise_as_it_was() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("out");
        drop(Output::open(&path).expect("made"));
        assert!(!path.exists());
        Output::open(&path).expect("made").fill("first text").expect("filled");
        drop(Output::open(&path).expect("opened"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "first text");
        Output::open(&path).expect("opened").fill("second").expect("filled");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "second");
    }
}
