//! What the file system is, and files in it.

use super::Site;
use crate::base::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const TMPFS: u64 = 0x0102_1994;

/// Network and cluster file systems, by the magic number of `statfs`: no coherent shared mapping between two nodes (P14).
/// One behind FUSE cannot be told from a local one.
const NETWORK: &[u64] = &[
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x564C,      // NCP
    0x5346_414F, // AFS (OpenAFS)
    0x6B41_4653, // AFS (kernel)
    0x7375_7245, // Coda
    0x00C3_6400, // Ceph
    0x0BD0_0BD0, // Lustre
    0x0116_1970, // GFS2
    0x7461_636F, // OCFS2
    0x0102_1997, // 9P
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0xAAD7_AAEA, // PanFS
    0x786F_4256, // VirtualBox's shared folders
    0xBACB_ACBC, // VMware's
];

/// The magic number of the file system at `path`.
pub(super) fn magic(path: &Path) -> Result<u64> {
    let at = rustix::fs::statfs(path).map_err(|e| Error::io(path, "find the file system", e.into()))?;
    // The field is signed and 32 or 64 bits wide as the machine has it; the magic numbers are 32 bits.
    Ok(at.f_type as u64 & 0xFFFF_FFFF)
}

/// True if `dir` lies on tmpfs: the only place where `medium=ram` is what it says.
pub fn is_tmpfs(dir: &Path) -> Result<bool> {
    Ok(magic(dir)? == TMPFS)
}

/// True if this is the magic number of a network or cluster file system.
#[must_use]
pub fn is_network_fs(magic: u64) -> bool {
    NETWORK.contains(&magic)
}

/// File systems of which it is known that they take no bytes for a hole that were written, not synced or just so: others did.
const HOLES: &[u64] = &[
    0xEF53,      // ext4
    0x5846_5342, // XFS
    TMPFS,
];

/// Whether it can be trusted what the file system says of holes in `file`.
pub(super) fn tells_holes(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|at| HOLES.contains(&(at.f_type as u64 & 0xFFFF_FFFF)))
}

/// Makes a creation, renaming or removal in `dir` persistent.
pub fn sync_dir(dir: &Path, _site: Site) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(dir, "sync the directory", e))
}

/// A new file, private to its owner until [`same_access`] gives it the rights of the base file.
pub(super) fn create_new(path: &Path) -> Result<File> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create_new(true).mode(0o600);
    how.open(path).map_err(|e| Error::io(path, "create", e))
}

/// An existing file, for reading and writing.
pub(super) fn open_existing(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::io(path, "open", e))
}

/// Gives `file` the mode, and for root the owner, of `model`, as SQLite does for its side files: whoever may use the
/// database may use them, nobody else.
pub(super) fn same_access(file: &File, path: &Path, model: &Path) -> Result<()> {
    let want = std::fs::metadata(model).map_err(|e| Error::io(model, "read the mode", e))?;
    let set = || -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(file, Some(want.uid()), Some(want.gid()))?;
        }
        file.set_permissions(PermissionsExt::from_mode(want.mode() & 0o777))
    };
    set().map_err(|e| Error::io(path, "set the mode", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_is_recognised_and_proc_is_not() -> Result<()> {
        if std::fs::read_to_string("/proc/mounts").is_ok_and(|m| m.contains(" /dev/shm tmpfs ")) {
            assert!(is_tmpfs(Path::new("/dev/shm"))?);
        }
        assert!(!is_tmpfs(Path::new("/proc"))?);
        assert!(!is_network_fs(magic(Path::new("/proc"))?) && is_network_fs(0x6969));
        assert!(is_tmpfs(Path::new("/no such directory")).is_err());
        Ok(())
    }
}
