//! Opening a database from Rust.

use crate::instance::NAME;
use nvlite_engine::MediumKind;
use nvlite_engine::store::medium_name;
use rusqlite::{Connection, OpenFlags, Result};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Opens, or creates, the database at `path`.
///
/// ```no_run
/// let db = nvlite_vfs::open("app.db")?;
/// db.execute("CREATE TABLE IF NOT EXISTS t(x)", ())?;
/// # Ok::<(), rusqlite::Error>(())
/// ```
///
/// # Errors
/// Those of SQLite; the reason stands in its error log.
pub fn open(path: impl AsRef<Path>) -> Result<Connection> {
    OpenOptions::new().open(path)
}

/// Which medium a database's region lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// Persistent memory where there is some, else a file.
    #[default]
    Auto,
    /// Persistent memory (a DAX file system).
    Dax,
    /// A file on any disk.
    File,
    /// Ordinary memory: survives the death of all processes, not of the machine.
    Ram,
}

impl Medium {
    /// The engine's word for it; `None` is to be found out.
    fn kind(self) -> Option<MediumKind> {
        match self {
            Medium::Auto => None,
            Medium::Dax => Some(MediumKind::Dax),
            Medium::File => Some(MediumKind::File),
            Medium::Ram => Some(MediumKind::Ram),
        }
    }
}

/// How to open a database.
///
/// ```no_run
/// use nvlite_vfs::{Medium, OpenOptions};
/// let db = OpenOptions::new().medium(Medium::Ram).region("64MiB").region_dir("/dev/shm").open("app.db")?;
/// # Ok::<(), rusqlite::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    medium: Option<Medium>,
    region: Option<String>,
    region_dir: Option<PathBuf>,
    keep_region: Option<&'static str>,
    journal_mode_reply: Option<String>,
    read_only: bool,
    no_create: bool,
    no_mutex: bool,
}

impl OpenOptions {
    /// Read and write, create if missing; everything else as the environment says, else by default.
    #[must_use]
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Where the region lies. Must agree with connections that are open already.
    #[must_use]
    pub fn medium(mut self, medium: Medium) -> Self {
        self.medium = Some(medium);
        self
    }

    /// Fast-tier budget, `64MiB` style, of a region that is yet to be made; one that is there keeps its own.
    #[must_use]
    pub fn region(mut self, size: impl Into<String>) -> Self {
        self.region = Some(size.into());
        self
    }

    /// Where the side files go; beside the database if not said.
    #[must_use]
    pub fn region_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.region_dir = Some(dir.into());
        self
    }

    /// Keep region and mark over the last close, if any connection wishes so: opening again is fast, but stock SQLite keeps
    /// refusing the file.
    #[must_use]
    pub fn keep_region(mut self, keep: bool) -> Self {
        self.keep_region = Some(if keep { "1" } else { "0" });
        self
    }

    /// For tools that only look: the last close is as those wish who have the database open, too; if there were none, region
    /// and mark are left as they were found.
    #[must_use]
    pub fn only_looks(mut self) -> Self {
        self.keep_region = Some("as_found");
        self
    }

    /// What `PRAGMA journal_mode` answers: `wal` for programs that insist on it.
    #[must_use]
    pub fn journal_mode_reply(mut self, mode: impl Into<String>) -> Self {
        self.journal_mode_reply = Some(mode.into());
        self
    }

    /// Only read.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether a missing database is created (it is, if not said).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.no_create = !create;
        self
    }

    /// Whether SQLite serialises the use of the connection by several threads (it does, if not said; Rust's types make
    /// it unnecessary).
    #[must_use]
    pub fn serialised(mut self, serialised: bool) -> Self {
        self.no_mutex = !serialised;
        self
    }

    /// Opens the database at `path`.
    ///
    /// # Errors
    /// Those of SQLite; the reason stands in its error log. `InvalidPath` for one with a zero byte, at which SQLite would cut it.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Connection> {
        let names = self.region_dir.iter().map(PathBuf::as_path).chain([path.as_ref()]);
        if let Some(cut) = names.into_iter().find(|name| name.as_os_str().as_bytes().contains(&0)) {
            return Err(rusqlite::Error::InvalidPath(cut.to_owned()));
        }
        crate::register()?;
        Connection::open_with_flags(self.uri(path.as_ref()), self.flags())
    }

    fn flags(&self) -> OpenFlags {
        let access = match (self.read_only, self.no_create) {
            (true, _) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            (false, true) => OpenFlags::SQLITE_OPEN_READ_WRITE,
            (false, false) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        let mutex = if self.no_mutex { OpenFlags::SQLITE_OPEN_NO_MUTEX } else { OpenFlags::SQLITE_OPEN_FULL_MUTEX };
        access | mutex | OpenFlags::SQLITE_OPEN_URI
    }

    /// The URI that asks for the same, for programs that open by URI and for `ATTACH`.
    #[must_use]
    pub fn uri(&self, path: &Path) -> String {
        let medium = self.medium.map(|medium| medium.kind().map_or("auto", medium_name));
        let mut uri = format!("file:{}?vfs={}", uri_path(path), NAME.to_string_lossy());
        let dir = self.region_dir.as_ref().map(|dir| dir.as_os_str().as_bytes());
        for (name, value) in [
            ("medium", medium.map(str::as_bytes)),
            ("region", self.region.as_deref().map(str::as_bytes)),
            ("region_dir", dir),
            ("keep_region", self.keep_region.map(str::as_bytes)),
            ("journal_mode_reply", self.journal_mode_reply.as_deref().map(str::as_bytes)),
        ] {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(uri, "&{name}={}", escape(value));
            }
        }
        uri
    }
}

/// A path as it stands in a URI, behind `file:`, whatever the VFS. An absolute one behind an empty authority: of one that
/// begins with two slashes SQLite would take the first name for that.
#[must_use]
pub fn uri_path(path: &Path) -> String {
    let authority = if path.is_absolute() { "//" } else { "" };
    format!("{authority}{}", escape(path.as_os_str().as_bytes()))
}

/// Percent-encodes all but what is plain in a URI's path.
fn escape(text: &[u8]) -> String {
    text.iter().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                escaped.push(char::from(*byte))
            }
            // Writing to a string cannot fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let options = OpenOptions::new().medium(Medium::Ram).region_dir("/a b");
        assert_eq!(
            options.uri(Path::new("/x/a?b%#.db")),
            "file:///x/a%3Fb%25%23.db?vfs=nvlite&medium=ram&region_dir=/a%20b"
        );
        assert_eq!(OpenOptions::new().uri(Path::new("a b.db")), "file:a%20b.db?vfs=nvlite");
    }

    #[test]
    fn a_name_is_opened_whole_or_not_at_all() {
        // Failure: of a name with two slashes in front the first part is taken for that of a machine, and one with a zero byte
        // opens another file.
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let doubled = PathBuf::from(format!("/{}", path.display()));
        let db = OpenOptions::new().open(&doubled).expect("opens");
        db.execute_batch("CREATE TABLE t(a)").expect("creates");
        drop(db);
        assert!(path.exists());
        for (options, path) in [
            (OpenOptions::new(), dir.path().join("b\0.db")),
            (OpenOptions::new().region_dir("b\0"), dir.path().join("b")),
        ] {
            assert!(matches!(options.open(path), Err(rusqlite::Error::InvalidPath(_))));
        }
        assert!(!dir.path().join("b").exists());
    }
}
