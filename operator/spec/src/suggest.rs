//! The nearest valid name for a wrong one.

use crate::units::clip;

/// Longer words are not compared: the cost is quadratic, and nobody mistypes by so much.
const MAX_WORD: usize = 64;

/// The candidate that a reader most likely meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``unknown WHAT `word`, did you mean `near`?`` or the list of what is valid.
pub(crate) fn unknown(what: &str, word: &str, candidates: &[&str]) -> String {
    const LISTED: usize = 12;
    let shown = clip(word);
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return format!("unknown {what} `{shown}`, did you mean `{near}`?");
    }
    let listed: Vec<String> = candidates.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    let more = if candidates.len() > LISTED { ", ..." } else { "" };
    format!("unknown {what} `{shown}`, valid are {}{more}", listed.join(", "))
}
