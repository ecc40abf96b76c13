//! Conditions, as other controllers and `kubectl wait` read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One fact about an object, and since when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the fact is about, such as `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    pub status: ConditionStatus,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people: what is, and what to do about it.
    pub message: String,
    /// When the status last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation of the spec that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Puts a condition in the place of the one of its type, whose time it keeps while the status stays the same.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: bool, time: &str) -> Condition {
        Condition {
            type_: "Ready".to_owned(),
            status: status.into(),
            reason: "Because".to_owned(),
            message: String::new(),
            last_transition_time: time.to_owned(),
            observed_generation: None,
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut all = Vec::new();
        for (status, time) in [(false, "1"), (false, "2"), (true, "3")] {
            set_condition(&mut all, ready(status, time));
        }
        assert_eq!(all, [ready(true, "3")]);
        set_condition(&mut all, ready(true, "4"));
        assert_eq!(all, [ready(true, "3")]);
    }
}
