//! The timeline, and the actions of one step.

use serde::{Deserialize, Serialize};

use super::Action;
use super::verdict::{TimelineEvent, TimelineKind};

/// Events kept at most; the verdict is always among them.
const MAX_EVENTS: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    pub events: Vec<TimelineEvent>,
}

/// What one step says and asks for.
pub(crate) struct Log<'a> {
    pub now_ms: u64,
    timeline: &'a mut Timeline,
    pub actions: Vec<Action>,
}

impl<'a> Log<'a> {
    pub fn new(now_ms: u64, timeline: &'a mut Timeline) -> Self {
        Self { now_ms, timeline, actions: Vec::new() }
    }

    pub fn note(&mut self, kind: TimelineKind, text: impl Into<String>) {
        self.note_at(self.now_ms, kind, text);
    }

    /// `at_ms` may lie before what was noted last: things are learned late.
    pub fn note_at(&mut self, at_ms: u64, kind: TimelineKind, text: impl Into<String>) {
        let event = TimelineEvent { at_ms, kind, text: text.into() };
        let events = &mut self.timeline.events;
        match events.len() {
            full if full >= MAX_EVENTS && kind != TimelineKind::Verdict => return,
            last if last + 1 == MAX_EVENTS && kind != TimelineKind::Verdict => events.push(TimelineEvent {
                at_ms,
                kind: TimelineKind::Note,
                text: "more happened than is listed here".to_owned(),
            }),
            _ => events.push(event.clone()),
        }
        self.actions.push(Action::Note(event));
    }
}

/// `12.3s`, for sentences.
pub(crate) fn seconds(ms: u64) -> String {
    if ms < 10_000 { format!("{:.2}s", ms as f64 / 1_000.0) } else { format!("{:.1}s", ms as f64 / 1_000.0) }
}
