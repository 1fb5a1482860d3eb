//! What happens without being an error (a region set aside, a dead writer's work finished, a failure of a background thread)
//! the engine tells as `tracing` events. A library that was loaded has `tracing` to itself, where nobody listens: there they go
//! to SQLite's error log. A program into which we are linked has a subscriber of its own, or none, which is its affair.

use crate::instance;
use crate::sys::SQLITE_WARNING;
use std::borrow::Cow;
use std::fmt::{Debug, Write};
use std::sync::Once;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Forwards from now on, once for all libraries of SQLite that this copy of the code serves.
///
/// Events come from any thread, those of the engine's own included: `sqlite3_log` may be called from each. Not after
/// `sqlite3_shutdown`, but no database is open then, and without one there is nothing to tell.
pub fn forward() {
    static ONCE: Once = Once::new();
    // one that is there already is the program's, into which this is linked
    ONCE.call_once(|| _ = tracing::subscriber::set_global_default(Forward(to_all)));
}

/// What lines begin with that go on where the one before was full. Nothing is left out between the two.
pub const GOES_ON: &str = "nvlite+ ";
/// So many bytes of a line SQLite's error log keeps, at least: 210, with the end, before it was 700.
const KEPT: usize = 200;

/// A text for the error log in lines of which nothing is cut off, broken behind a space where there is one.
pub fn pieces(text: &str) -> Vec<Cow<'_, str>> {
    let (mut rest, mut pieces) = (text, Vec::new());
    loop {
        let room = if pieces.is_empty() { KEPT } else { KEPT - GOES_ON.len() };
        let end = if rest.len() <= room { rest.len() } else { break_at(rest, room) };
        let (piece, after) = rest.split_at(end);
        pieces.push(if pieces.is_empty() { Cow::from(piece) } else { Cow::from(format!("{GOES_ON}{piece}")) });
        rest = after;
        if rest.is_empty() {
            return pieces;
        }
    }
}

/// Where to break a text that has more than `room` bytes.
fn break_at(text: &str, room: usize) -> usize {
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    // a short first line would be worse than a word in two
    text[..end].rfind(' ').map(|space| space + 1).filter(|at| *at > room / 2).unwrap_or(end)
}

fn to_all(text: &str) {
    let text = format!("nvlite: {text}");
    instance::all().iter().for_each(|instance| instance.api.write_log(SQLITE_WARNING, &text));
}

/// Where the words of an event go.
struct Forward(fn(&str));

impl Subscriber for Forward {
    fn enabled(&self, event: &Metadata<'_>) -> bool {
        event.is_event() && *event.level() <= Level::WARN && event.target().starts_with("nvlite")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0(&(text.message + &text.fields));
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event in words, the message first.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // writing to a String does not fail
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn no_cause_is_cut_off_behind_a_long_path() {
        // Failure: of an error about a file deep in its directories the log has the directories only.
        for path in ["directory/", "ä", "0123456789".repeat(30).as_str()].map(|name| name.repeat(40)) {
            let text =
                format!("nvlite: /{path}/app.db: its region is missing: {}", "is that directory mounted? ".repeat(9));
            let pieces = pieces(&text);
            assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() < 210), "{pieces:?}");
            let rest: String = pieces[1..].iter().map(|piece| piece.strip_prefix(GOES_ON).expect("marked")).collect();
            assert_eq!(format!("{}{rest}", pieces[0]), text);
        }
        assert_eq!(pieces("nvlite: short"), ["nvlite: short"]);
    }

    #[test]
    fn warnings_of_ours_are_told_in_words() {
        static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let keep = Forward(|text| KEPT.lock().expect("not poisoned").push(text.to_owned()));
        tracing::subscriber::with_default(keep, || {
            let path = std::path::Path::new("/a/b");
            tracing::warn!(region = %path.display(), slot = 3, "set aside");
            tracing::error!("failed");
            tracing::info!("recovered");
            tracing::warn!(target: "another", "not ours");
        });
        assert_eq!(*KEPT.lock().expect("not poisoned"), ["set aside, region /a/b, slot 3", "failed"]);
    }
}
