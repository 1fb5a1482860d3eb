//! `nvlite verify`.

use super::database::{Outside, State, look, missing, open, region_path};
use super::{Failed, Target, log, output};
use nvlite_engine::Error;
use nvlite_engine::store::inspect;
use rusqlite::Connection;
use serde::Serialize;
use std::io::ErrorKind;

#[derive(Serialize)]
pub struct Check {
    name: &'static str,
    /// It holds.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

#[derive(Serialize)]
struct Verdict {
    db: String,
    ok: bool,
    checks: Vec<Check>,
}

/// Runs it.
///
/// # Errors
/// The database cannot be checked: it cannot be read at all, it is busy, or not to be reached from here.
pub fn run(target: &Target) -> Result<bool, Failed> {
    let outside = look(target)?;
    let header = match outside.state {
        State::Empty => "an empty file, which is a database without tables".to_owned(),
        State::Stock => "a stock SQLite file".to_owned(),
        State::Marked => format!("marked for region {}", named(&outside)),
        State::Foreign => "not a SQLite database".to_owned(),
    };
    let mut checks = vec![Check { name: "header", ok: outside.state != State::Foreign, detail: header }];
    if outside.state != State::Foreign {
        inside(target, &outside, &mut checks)?;
    }
    let ok = checks.iter().all(|check| check.ok);
    let verdict = Verdict { db: target.db.display().to_string(), ok, checks };
    let line =
        |check: &Check| (check.name.to_owned(), format!("{}{}", if check.ok { "" } else { "FAILED: " }, check.detail));
    output::print(target.json, &verdict, &verdict.checks.iter().map(line).collect::<Vec<_>>())?;
    Ok(!ok)
}

/// The region that the mark names.
fn named(outside: &Outside) -> String {
    outside.region.map(|id| id.to_string()).unwrap_or_default()
}

/// The checks of what the mark names, and those that need the database open.
///
/// # Errors
/// What says nothing about the database: it is busy, may not be read, cannot be reached from here.
fn inside(target: &Target, outside: &Outside, checks: &mut Vec<Check>) -> Result<(), Failed> {
    // Of one that is open, the others have the region.
    if outside.state == State::Marked && !outside.open {
        let check = region(target, outside)?;
        let there = check.ok;
        checks.push(check);
        if !there {
            return Ok(());
        }
    }
    // The first statement attaches: the engine checks superblock, journals and table before it answers.
    let attached = open(target).and_then(|db| {
        db.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0)).map(|tables| (db, tables))
    });
    match attached {
        Ok((db, objects)) => {
            let detail = match outside.state {
                State::Marked => format!("region attached, {objects} objects in the schema"),
                _ => format!("{objects} objects in the schema"),
            };
            checks.push(Check { name: "open", ok: true, detail });
            if outside.state == State::Marked {
                checks.push(pages(&db)?);
            }
            checks.push(integrity(&db)?);
        }
        Err(error) => checks.push(Check { name: "open", ok: false, detail: finding(error)? }),
    }
    Ok(())
}

/// Whether the region that the mark names is where it is looked for.
fn region(target: &Target, outside: &Outside) -> Result<Check, Failed> {
    let path = region_path(target)?;
    let (ok, detail) = match inspect(&path) {
        Ok(Some(found)) if outside.region == Some(found.region) => (true, format!("at {}", path.display())),
        Ok(Some(found)) => (false, format!("at {} is region {}, not {}", path.display(), found.region, named(outside))),
        Ok(None) => (false, format!("{} is empty", path.display())),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            (false, outside.region.map(|id| missing(target, id)).transpose()?.unwrap_or_default())
        }
        Err(error @ (Error::Corrupt { .. } | Error::Foreign { .. } | Error::CantOpen { .. })) => {
            (false, error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Check { name: "region", ok, detail })
}

/// Whether all pages that are not at home hold what was put there.
///
/// # Errors
/// What says nothing about the database.
fn pages(db: &Connection) -> Result<Check, Failed> {
    let damaged = db.prepare("SELECT page, place, block, remedy FROM nvlite_damage").and_then(|mut statement| {
        let line = |row: &rusqlite::Row<'_>| {
            let (page, place, block): (u32, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let remedy: String = row.get(3)?;
            Ok(format!("page {page}, in block {block} of the {place}, is not what was put there: {remedy}"))
        };
        statement.query_map((), line)?.collect::<rusqlite::Result<Vec<_>>>()
    });
    let (ok, detail) = match damaged {
        Ok(lines) if lines.is_empty() => {
            (true, "those in memory and in the cold file match their checksums".to_owned())
        }
        Ok(lines) => (false, lines.join("; ")),
        Err(error) => (false, finding(error)?),
    };
    Ok(Check { name: "pages", ok, detail })
}

/// SQLite's own check.
///
/// # Errors
/// What says nothing about the database.
pub fn integrity(db: &Connection) -> Result<Check, Failed> {
    let rows = db.prepare("PRAGMA integrity_check").and_then(|mut statement| {
        statement.query_map((), |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
    });
    let (ok, detail) = match rows {
        Ok(rows) => (rows == ["ok"], rows.join("; ")),
        Err(error) => (false, finding(error)?),
    };
    Ok(Check { name: "integrity_check", ok, detail })
}

/// What an error says about the database.
///
/// # Errors
/// It says something about its environment.
fn finding(error: rusqlite::Error) -> Result<String, Failed> {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OutOfMemory, PermissionDenied,
        ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(
            CannotOpen
            | DatabaseBusy
            | DatabaseLocked
            | DiskFull
            | FileLockingProtocolFailed
            | OutOfMemory
            | PermissionDenied
            | ReadOnly
            | SystemIoFailure,
        ) => Err(error.into()),
        _ => Ok(log::explained(&error)),
    }
}
