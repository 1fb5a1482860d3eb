//! `nvlite verify`.

use super::database::{Outside, State, look, open};
use super::{Failed, Target, output};
use rusqlite::Connection;
use serde::Serialize;

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
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
/// The file cannot be read at all.
pub fn run(target: &Target) -> Result<bool, Failed> {
    let outside = look(target)?;
    let header = match outside.state {
        State::Empty => "an empty file, which is a database without tables".to_owned(),
        State::Stock => "a stock SQLite file".to_owned(),
        State::Marked => format!("marked for region {}", outside.region.clone().unwrap_or_default()),
        State::Foreign => "not a SQLite database".to_owned(),
    };
    let mut checks = vec![Check { name: "header", ok: outside.state != State::Foreign, detail: header }];
    if outside.state != State::Foreign {
        inside(target, &outside, &mut checks);
    }
    let ok = checks.iter().all(|check| check.ok);
    let verdict = Verdict { db: target.db.display().to_string(), ok, checks };
    let line =
        |check: &Check| (check.name.to_owned(), format!("{}{}", if check.ok { "" } else { "FAILED: " }, check.detail));
    output::print(target.json, &verdict, &verdict.checks.iter().map(line).collect::<Vec<_>>())?;
    Ok(!ok)
}

/// The checks that need the database open.
fn inside(target: &Target, outside: &Outside, checks: &mut Vec<Check>) {
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
            checks.push(integrity(&db));
        }
        Err(error) => checks.push(Check { name: "open", ok: false, detail: error.to_string() }),
    }
}

fn integrity(db: &Connection) -> Check {
    let rows = db.prepare("PRAGMA integrity_check").and_then(|mut statement| {
        statement.query_map((), |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
    });
    let (ok, detail) = match rows {
        Ok(rows) => (rows == ["ok"], rows.join("; ")),
        Err(error) => (false, error.to_string()),
    };
    Check { name: "integrity_check", ok, detail }
}
