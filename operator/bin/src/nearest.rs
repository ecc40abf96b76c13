//! The nearest valid name for a typo.

/// `, did you mean \`validator-0\`?` or the list of what there is; empty when there is nothing to offer.
pub fn hint(wrong: &str, valid: &[String]) -> String {
    let best = valid.iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name)).min();
    match best {
        Some((distance, name)) if distance <= wrong.len() / 3 + 1 => format!(", did you mean `{name}`?"),
        Some(_) => format!("; there are: {}", valid.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn a_typo_gets_the_nearest_name_and_a_stranger_gets_the_list() {
        let valid = ["validator-0".to_owned(), "full-0".to_owned()];
        assert_eq!(hint("valdator-0", &valid), ", did you mean `validator-0`?");
        assert_eq!(hint("zzz", &valid), "; there are: validator-0, full-0");
        assert_eq!(hint("zzz", &[]), "");
    }
}
