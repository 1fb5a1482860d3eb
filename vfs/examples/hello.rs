//! A database with durable commits: `cargo run --example hello [FILE]`.

fn main() -> rusqlite::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "hello.db".into());
    let db = nvlite_vfs::open(&path)?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS greeting(id INTEGER PRIMARY KEY, words TEXT NOT NULL)")?;
    db.execute("INSERT INTO greeting(words) VALUES (?1)", ["hello"])?;
    let count: i64 = db.query_row("SELECT count(*) FROM greeting", (), |row| row.get(0))?;
    println!("{path} has said hello {count} times");
    let version: String = db.query_row("SELECT nvlite_version()", (), |row| row.get(0))?;
    println!("nvlite {version}");
    db.close().map_err(|(_, error)| error)
}
