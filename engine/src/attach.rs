//! Attaching to a database by its files (P13, P14), and leaving it. All of it runs under one exclusive, timed lock on the
//! region file, so that two processes never see each other half way.
//!
//! | base | region | anybody attached | what happens |
//! | --- | --- | --- | --- |
//! | marked | its own | yes | join: open the mapping that the superblock names |
//! | marked | its own, complete | no | a clean close was interrupted: finish it, then as unmarked |
//! | marked | its own; the cold file that its log needs is missing | no | refuse, naming that |
//! | marked | its own | no | recover, new mapping |
//! | marked | none, or another's | | refuse, naming the identity that is missing |
//! | unmarked | complete | no | a clean close was interrupted at its end: remove the region, adopt the base into a new one |
//! | unmarked | empty, or holding nothing | no | adopt the base into it |
//! | unmarked | any other | no | set the region aside, never apply it; adopt the base into a new region |
//!
//! Unmarked means durably so: beside a region, the header is first written again as it was read, and synced. Who only reads is
//! refused an unmarked base, whatever stands beside it.

mod cold;
mod mapping;
mod stock;

use self::mapping::New;
use crate::assemble::{self, Parts};
use crate::base::limits::MAX_REGION;
use crate::base::sync::Ordering;
use crate::base::{Error, Jci, MediumKind, RegionId, Result};
use crate::engine::{Engine, Region};
use crate::format::FormatError;
use crate::format::layout::Layout;
use crate::format::mark;
use crate::format::superblock::{self, Superblock};
use crate::medium::{BaseFile, BaseOpener, Disk, FileDisk, Mapped, Site, is_network_fs, is_tmpfs, probe, sync_dir};
use crate::shared::Places;
use crate::shm::{AttachLock, Liveness, Segment};
use crate::stats::medium_name;
use crate::store::Options;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for another process that attaches or detaches.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a stock file is recovered that is not whole afterwards.
const RECOVERIES: u32 = 4;

/// The side files of a database.
#[derive(Clone, Debug)]
pub struct SideFiles {
    /// The base file.
    pub base: PathBuf,
    /// Where the others are.
    pub dir: PathBuf,
    /// The region.
    pub region: PathBuf,
    /// The cold file.
    pub cold: PathBuf,
}

impl SideFiles {
    /// The side files of `base`.
    #[must_use]
    pub fn of(base: &Path, dir: Option<&Path>) -> SideFiles {
        let dir = dir.unwrap_or(parent_of(base)).to_owned();
        let name = base.file_name().unwrap_or_default();
        let side = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            dir.join(name)
        };
        SideFiles { base: base.to_owned(), region: side("-nvlite"), cold: side("-cold"), dir }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An attachment: the engine, and what it takes to leave.
pub struct Attached {
    /// The engine.
    pub engine: Engine,
    /// Where things are.
    pub files: SideFiles,
    /// The region file, open for the attach lock.
    pub lock_file: File,
}

fn random(n: &mut [u8]) -> Result<()> {
    let path = Path::new("/dev/urandom");
    File::open(path).and_then(|mut f| f.read_exact(n)).map_err(|e| Error::io(path, "read", e))
}

fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0u8; 16];
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    id
}

fn header_of(base: &dyn BaseFile) -> Result<[u8; mark::HEADER]> {
    let mut header = [0u8; mark::HEADER];
    base.read_at(0, &mut header)?;
    Ok(header)
}

fn not_allowed(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

/// Opens the region file, making an empty one if there is none, and takes its lock. The file that the path names is locked
/// then: a detaching process may have removed the one we opened first.
fn lock_region(files: &SideFiles) -> Result<(File, AttachLock)> {
    loop {
        let file = match FileDisk::open(&files.region) {
            Ok(disk) => disk,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                match FileDisk::create(&files.region) {
                    Ok(disk) => {
                        disk.same_access(&files.base)?;
                        disk
                    }
                    Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => continue,
                    Err(Error::Io { source, .. }) if not_allowed(&source) => {
                        let why = format!(
                            "cannot be created: {source}; nvlite needs a directory that it may write to (region_dir)"
                        );
                        return Err(Error::cant_open(&files.region, why));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let file = file.file().try_clone().map_err(|e| Error::io(&files.region, "open", e))?;
        let lock = AttachLock::take(&file, PATIENCE)?;
        let ours = file.metadata().map_err(|e| Error::io(&files.region, "look at", e))?;
        match std::fs::metadata(&files.region) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok((file, lock)),
            _ => drop(lock),
        }
    }
}

/// Refuses network file systems, on which two machines would each have a mapping of their own (P14).
fn refuse_network(base: &dyn BaseOpener, files: &SideFiles) -> Result<()> {
    for path in [&files.base, &files.dir] {
        if is_network_fs(base.file_system(path)?) {
            return Err(Error::cant_open(
                path,
                "network file systems are refused: their locks and mappings are not shared",
            ));
        }
    }
    Ok(())
}

fn choose_medium(options: &Options, files: &SideFiles) -> Result<MediumKind> {
    match options.medium {
        None => Ok(if probe(&files.dir) { MediumKind::Dax } else { MediumKind::File }),
        Some(MediumKind::Dax) if !probe(&files.dir) => {
            Err(Error::cant_open(&files.dir, "medium=dax, but MAP_SYNC does not succeed here"))
        }
        Some(MediumKind::Ram) if !is_tmpfs(&files.dir)? => Err(Error::cant_open(
            &files.dir,
            "medium=ram needs the region on tmpfs: set region_dir to a directory there (for example /dev/shm)",
        )),
        Some(kind) => Ok(kind),
    }
}

fn open_region(files: &SideFiles, kind: MediumKind) -> Result<Region> {
    Ok(match kind {
        MediumKind::File => Region::Disk(Arc::new(FileDisk::open(&files.region)?)),
        kind => Region::Pmem(Arc::new(Mapped::open(&files.region, kind)?)),
    })
}

/// Reads the superblock of a region file as plain bytes; `None` if the file is empty.
fn peek(files: &SideFiles) -> Result<Option<Superblock>> {
    let disk = FileDisk::open(&files.region)?;
    if disk.len()? == 0 {
        return Ok(None);
    }
    Region::Disk(Arc::new(disk)).superblock().map(Some)
}

/// Whether there is nothing where a region has its log, and of the superblocks what a power cut may leave of new ones: an
/// adoption ended before it marked the base. A newer version may have its log elsewhere.
fn holds_nothing(files: &SideFiles) -> Result<bool> {
    let disk = FileDisk::open(&files.region)?;
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    while at < Layout::LOG_END {
        let n = disk.read_at(at, &mut bytes)?;
        if at == 0 {
            let superblocks = &mut bytes[..2 * superblock::SIZE];
            let ours = |copy: &[u8]| match Superblock::decode(copy) {
                Err(FormatError::Version(_)) => false,
                Err(FormatError::Foreign) => copy.starts_with(&[0; 8]),
                _ => true,
            };
            if !superblocks.chunks(superblock::SIZE).all(ours) {
                return Ok(false);
            }
            superblocks.fill(0);
        }
        if bytes[..n].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        if n < bytes.len() {
            break;
        }
        at += n as u64;
    }
    Ok(true)
}

/// Attaches to the database of `base`; `None` if something was in the way that is out of it now: to be called again.
///
/// # Errors
/// As the table says; `Busy` while another process is in the middle of attaching, or stock SQLite uses the file.
pub fn attach(base: Arc<dyn BaseOpener>, options: &Options) -> Result<Option<Attached>> {
    let files = SideFiles::of(base.path(), options.region_dir.as_deref());
    let handle = base.open()?;
    let header = header_of(handle.as_ref())?;
    if let Some(id) = mark::identity(&header)
        && !files.region.exists()
        && mark::identity(&header_of(handle.as_ref())?) == Some(id)
    {
        return Err(missing(&files, id));
    }
    may_adopt(options, &files, &header)?;
    refuse_network(base.as_ref(), &files)?;
    let (lock_file, lock) = lock_region(&files)?;
    let open = || {
        let liveness = Liveness::join(lock_file.try_clone().map_err(|e| Error::io(&files.region, "open", e))?)?;
        if liveness.anyone_else() {
            join(&base, options, &files, liveness).map(Some)
        } else {
            first(&base, options, &files, liveness, handle.as_ref())
        }
    };
    match open() {
        Ok(engine) => {
            drop(lock);
            Ok(engine.map(|engine| Attached { engine, files, lock_file }))
        }
        Err(error) => {
            // an empty region file is one that this call made
            if lock_file.metadata().is_ok_and(|m| m.len() == 0) {
                let _ = std::fs::remove_file(&files.region);
            }
            drop(lock);
            Err(error)
        }
    }
}

/// The error of a marked base whose region is not where it is looked for. The mark does not say on which medium that was.
pub fn missing(files: &SideFiles, id: RegionId) -> Error {
    let lost = match is_tmpfs(&files.dir) {
        Ok(true) => "that directory is in memory: if the machine was started anew since, region and database are lost",
        _ => "one with medium=ram is lost when the machine is started anew, and the database with it",
    };
    Error::cant_open(
        &files.base,
        format!(
            "its newest data is in the nvlite region {id}, which is not at {}; put the region back or open with the region_dir that has it ({lost})",
            files.region.display()
        ),
    )
}

fn join(base: &Arc<dyn BaseOpener>, options: &Options, files: &SideFiles, liveness: Liveness) -> Result<Engine> {
    let superblock = peek(files)?.ok_or_else(|| Error::cant_open(&files.region, "it is attached, but empty"))?;
    if let Some(kind) = options.medium.filter(|&kind| kind != superblock.medium) {
        let (asked, has) = (medium_name(kind), medium_name(superblock.medium));
        let why = format!("medium={asked} was asked for, but other processes have it open as {has}");
        return Err(Error::cant_open(&files.region, why));
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(superblock.mapping.clone()));
    let unreachable = |why: &str| {
        let path = path.display();
        Error::cant_open(
            &files.region,
            format!(
                "another process has this database open through the shared mapping {path}, which {why}; processes that share a database must see the same {path} (same container, same mount namespace, same nvlite version)"
            ),
        )
    };
    tell_budget(options, files, &superblock);
    let region = open_region(files, superblock.medium)?;
    let places = Places::new(&Layout::new(superblock.budget, 0, superblock.medium != MediumKind::File));
    if superblock.boot != boot_id() {
        return Err(unreachable("belongs to another boot of the machine"));
    }
    if superblock.shape != places.shape() {
        return Err(unreachable("has another layout: it was made by another version of nvlite"));
    }
    let segment =
        Segment::open(&path, superblock.mapping_len).map_err(|_| unreachable("cannot be opened from here"))?;
    let mut nonce = [0u8; 16];
    segment.copy_out(places.len, &mut nonce);
    if nonce != superblock.nonce {
        return Err(unreachable("is another one (its nonce differs)"));
    }
    let cold = cold::join(files)?;
    let parts = Parts { region, cold, base: base.clone(), segment, liveness, budget: superblock.budget, verify: true };
    let engine = Engine::join(parts, &superblock)?;
    engine.shared.check()?;
    Ok(engine)
}

fn first(
    base: &Arc<dyn BaseOpener>,
    options: &Options,
    files: &SideFiles,
    liveness: Liveness,
    handle: &dyn BaseFile,
) -> Result<Option<Engine>> {
    let header = header_of(handle)?;
    may_adopt(options, files, &header)?; // whoever had it open may have closed it while we waited for the lock
    let marked = mark::identity(&header);
    // before anything happens to the region: should the power fail and the mark be back, it is the one that the mark names
    if marked.is_none() && !FileDisk::open(&files.region)?.is_empty()? && !assemble::keep_unmarked(handle)? {
        return Ok(None);
    }
    let found = match peek(files) {
        Ok(found) => found,
        Err(error) if marked.is_some() => return Err(error),
        Err(_) if holds_nothing(files)? => None,
        Err(error) => {
            tracing::warn!(%error, "the region beside a stock file cannot be read");
            set_aside(files, "unreadable")?;
            return Ok(None);
        }
    };
    if let Some(superblock) = &found {
        mapping::remove_dead(files, superblock);
    }
    let start = match (marked, found) {
        (Some(id), Some(s)) if s.region == id && s.complete => {
            tracing::info!(base = %files.base.display(), "finishing an interrupted clean close");
            assemble::unmark_base(handle, s.pages, s.page_size.max(512))?;
            discard(files)?;
            return Ok(None);
        }
        (Some(id), Some(s)) if s.region == id => {
            check_medium(options, files, &s)?;
            tell_budget(options, files, &s);
            cold::check(files, &s)?;
            Start { beside: Beside::open(files, &s)?, superblock: s, adopted: false }
        }
        (Some(id), _) => return Err(missing(files, id)),
        (None, Some(s)) if s.complete => {
            // a clean close was interrupted after its last write: everything in it is at home
            discard(files)?;
            return Ok(None);
        }
        // an adoption died before it marked the base
        (None, Some(s)) if s.low_water == Jci::ZERO && holds_nothing(files)? => adopt(base, options, files, handle)?,
        (None, Some(s)) => {
            set_aside(files, &s.region.to_string())?;
            return Ok(None);
        }
        (None, None) => adopt(base, options, files, handle)?,
    };
    let Start { superblock, beside, adopted } = start;
    let Beside { region, cold, cold_is_new, segment, mapping } = beside;
    if cold_is_new && !adopted {
        sync_dir(&files.dir, Site::ColdName)?; // an adoption has synced all that it made
    }
    let parts = Parts { region, cold, base: base.clone(), segment, liveness, budget: superblock.budget, verify: true };
    let engine = if adopted {
        Engine::adopted(parts, &superblock)
    } else {
        Engine::first(parts, |next, places| mapping.describe(next, places))
    };
    let engine = engine.inspect_err(|_| {
        remove(&mapping.path);
        if adopted {
            take_back(files, handle, superblock.region);
        }
    })?;
    if adopted {
        engine.wish_as(FINISH); // as it was found it is a stock file
    }
    Ok(Some(engine))
}

/// Refuses a base that is a stock file to who must leave it one: the last who had it open has closed it.
fn may_adopt(options: &Options, files: &SideFiles, header: &[u8; mark::HEADER]) -> Result<()> {
    if options.adopt || mark::identity(header).is_some() {
        return Ok(());
    }
    let why = "others closed it, and it is a stock file now, which who only reads it leaves as it is: open it again";
    Err(Error::cant_open(&files.base, why))
}

/// What the first attachment begins with.
struct Start {
    superblock: Superblock,
    beside: Beside,
    /// The base was a stock file until now.
    adopted: bool,
}

/// What stands beside the base, open.
struct Beside {
    region: Region,
    cold: Arc<dyn Disk>,
    cold_is_new: bool,
    segment: Segment,
    mapping: New,
}

impl Beside {
    /// Opens the region that `superblock` is of, and makes a new mapping.
    fn open(files: &SideFiles, superblock: &Superblock) -> Result<Beside> {
        let region = open_region(files, superblock.medium)?;
        let (cold, cold_is_new) = cold::open(files)?;
        let (segment, mapping) = mapping::create(files, superblock)?;
        Ok(Beside { region, cold, cold_is_new, segment, mapping })
    }
}

/// Makes a base that was adopted a stock file again, and removes what stands beside it: nothing was committed.
fn take_back(files: &SideFiles, handle: &dyn BaseFile, id: RegionId) {
    let undo = || -> Result<()> {
        let header = header_of(handle)?;
        if mark::identity(&header) == Some(id) {
            let pages = mark::pages(&header).unwrap_or(0);
            assemble::unmark_base(handle, pages, mark::page_size(&header).unwrap_or(512))?;
        }
        Ok(())
    };
    match undo() {
        Ok(()) => [&files.region, &files.cold].into_iter().for_each(|path| remove(path)),
        Err(error) => tracing::warn!(%error, "the base stays marked, although nothing is newer than it"),
    }
}

/// A region keeps the budget that it was made with.
fn tell_budget(options: &Options, files: &SideFiles, superblock: &Superblock) {
    let (asked, has) = (options.region, superblock.budget);
    if asked != has {
        tracing::info!(region = %files.region.display(), asked, has, "the region keeps the budget that it was made with");
    }
}

fn check_medium(options: &Options, files: &SideFiles, superblock: &Superblock) -> Result<()> {
    match options.medium {
        Some(kind) if kind != superblock.medium => {
            let (asked, has) = (medium_name(kind), medium_name(superblock.medium));
            let why = format!(
                "medium={asked} was asked for, but its data is on medium {has}; open and close it with that first"
            );
            Err(Error::cant_open(&files.region, why))
        }
        _ => Ok(()),
    }
}

/// Takes a stock base over: recovered by stock SQLite, a new region beside it, marked under stock SQLite's exclusive lock.
fn adopt(base: &Arc<dyn BaseOpener>, options: &Options, files: &SideFiles, handle: &dyn BaseFile) -> Result<Start> {
    if options.region > MAX_REGION {
        let why = format!("a region of {} bytes was asked for; {MAX_REGION} are the most possible", options.region);
        return Err(Error::cant_open(&files.region, why));
    }
    let kind = choose_medium(options, files)?;
    for _ in 0..RECOVERIES {
        match base.recover_stock() {
            // to stock SQLite zeros are no database
            Err(Error::Foreign { .. }) if assemble::is_blank(handle)? => {}
            // an empty file too: a journal or WAL beside it is of another file of this name, and would be applied to this
            // one once it is not empty any more; stock SQLite deletes it
            recovered => recovered?,
        }
        handle.lock_exclusive()?;
        let result = match stock::is_unfinished(&files.base) {
            Ok(true) => Ok(None), // somebody changed the file in between, and died
            Ok(false) => adopt_locked(options, files, handle, kind).map(Some),
            Err(error) => Err(error),
        };
        handle.unlock()?;
        if let Some(start) = result? {
            return Ok(start);
        }
    }
    Err(Error::Busy("what stock SQLite left beside the file does not go away"))
}

fn adopt_locked(options: &Options, files: &SideFiles, handle: &dyn BaseFile, kind: MediumKind) -> Result<Start> {
    let header = header_of(handle)?;
    if header[18] == 2 || header[19] == 2 {
        return Err(Error::Busy("stock SQLite has the file open in WAL mode"));
    }
    let page_size = if assemble::is_blank(handle)? { 0 } else { mark::page_size(&header).unwrap_or(0) };
    let mut id = RegionId::default();
    random(&mut id.0)?;
    let mut superblock = assemble::new_superblock(id, options.region, kind, page_size);
    let disk = FileDisk::open(&files.region)?;
    disk.set_len(0)?; // what an adoption that died has left
    disk.set_len(assemble::region_len(options.region, kind))?;
    let mut made = || {
        // before the mark, which a failure would have to take off again
        let beside = Beside::open(files, &superblock)?;
        let layout = Layout::new(superblock.budget, 0, kind != MediumKind::File);
        beside.mapping.describe(&mut superblock, &Places::new(&layout));
        let mark = || {
            assemble::format_region(&beside.region, &superblock)?;
            sync_dir(&files.dir, Site::SideNames)?;
            if parent_of(&files.base) != files.dir {
                sync_dir(parent_of(&files.base), Site::BaseName)?;
            }
            assemble::mark_base(handle, id)
        };
        match mark() {
            Ok(_) => Ok(beside),
            Err(error) => {
                remove(&beside.mapping.path);
                Err(error)
            }
        }
    };
    match made() {
        Ok(beside) => Ok(Start { superblock, beside, adopted: true }),
        Err(error) => {
            take_back(files, handle, id);
            Err(error)
        }
    }
}

/// Where the file at `path` goes that is set aside: the `n`-th of that name.
fn stale(path: &Path, id: &str, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".stale-{id}"));
    if n > 1 {
        name.push(format!("-{n}"));
    }
    PathBuf::from(name)
}

/// Sets a region that is not the base's aside: never applied, never deleted, nor over another one that was. The region last:
/// as long as it has its name, the next open does what is left to do, and nobody takes the cold file for his own.
fn set_aside(files: &SideFiles, id: &str) -> Result<()> {
    let both = [&files.cold, &files.region];
    // under the attach lock of the region, so that nobody else is about it
    let taken = |n: &u32| both.iter().any(|path| stale(path, id, *n).exists());
    let n = (1..).find(|n| !taken(n)).unwrap_or(u32::MAX);
    for path in both {
        if path.exists() {
            let to = stale(path, id, n);
            rename_to_new(path, &to).map_err(|e| Error::io(path, "set aside", e))?;
            sync_dir(&files.dir, Site::AsideNames)?;
            // its commits are not in the database that is opened, and its owner may miss them
            tracing::warn!(to = %to.display(), "set aside what is not of this database");
        }
    }
    Ok(())
}

fn rename_to_new(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // a file system without: nothing was there when we looked
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
        done => Ok(done?),
    }
}

/// Removes the region and the cold file of a base that holds everything. A power cut may bring them back.
fn discard(files: &SideFiles) -> Result<()> {
    for path in [&files.region, &files.cold] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, "remove", e)),
            _ => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "not removed");
    }
}

impl Attached {
    /// Leaves. The last one writes everything home and removes the side files, unless somebody wished to keep them.
    ///
    /// # Errors
    /// Of the media; everything then stays for the next open to recover.
    pub fn detach(self) -> Result<()> {
        let Attached { engine, files, lock_file } = self;
        if engine.forked() {
            std::mem::forget(engine);
            return Ok(());
        }
        if engine.shared.check().is_ok() {
            // before the wait for the lock, which may end without it; that this fails is told by the region, which fails, too
            let _ = engine.flush(engine.maintainer, engine.shared.published());
        }
        let _lock = AttachLock::take(&lock_file, PATIENCE)?;
        let last = !engine.live.anyone_else();
        let mapping = engine.shared.segment.path().filter(|_| last).map(Path::to_owned);
        let done = leave(&engine, last);
        // gone before the attach lock is: of two that leave at once, the second must find itself the last
        drop(engine);
        // also of a region that has failed: nobody can use it again. Before the region, without which it would not be found
        if let Some(path) = mapping {
            remove(&path);
        }
        if done? {
            discard(&files)?;
            sync_dir(&files.dir, Site::GoneNames)?;
        }
        Ok(())
    }
}

/// Makes what was committed durable; the last one finishes, if that is wished. True if all is home, and the side files may go.
fn leave(engine: &Engine, last: bool) -> Result<bool> {
    if engine.shared.check().is_err() {
        return Ok(false);
    }
    engine.flush(engine.maintainer, engine.shared.published())?;
    if !last {
        engine.shared.slots().release(engine.maintainer);
        return Ok(false);
    }
    Ok(engine.shall_finish() && engine.finish_all()?)
}

impl Engine {
    /// Notes what one who attaches wishes about the last close.
    pub fn wish(&self, options: &Options) {
        let wish = match (options.keep_region, options.only_looks) {
            (true, _) => KEEP,
            (false, true) => return,
            (false, false) => FINISH,
        };
        self.wish_as(wish);
    }

    fn wish_as(&self, wish: u32) {
        self.shared.head().wishes.fetch_or(wish, Ordering::Relaxed);
    }

    /// Whether the last one who leaves finishes: somebody opened the database to use it, or found a stock file, and nobody
    /// wished to keep the region.
    fn shall_finish(&self) -> bool {
        self.shared.head().wishes.load(Ordering::Relaxed) == FINISH
    }
}

/// A bit of the wishes in the shared mapping: somebody uses the database, which may be left a stock file, or found one...
const FINISH: u32 = 1;
/// ...or somebody uses it, and wished that the region be kept.
const KEEP: u32 = 2;
