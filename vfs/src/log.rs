//! What happens without being an error (a region set aside, a dead writer's work finished, a failure of a background thread)
//! the engine tells as `tracing` events. A library that was loaded has `tracing` to itself, where nobody listens: there they go
//! to SQLite's error log. A program into which we are linked has a subscriber of its own, or none, which is its affair.

use crate::instance;
use crate::sys::SQLITE_WARNING;
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

/// An event in words: SQLite cuts what is longer than some 200 bytes, so the message comes first.
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
