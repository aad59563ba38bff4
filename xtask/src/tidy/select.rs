//! `tokio::select!` says `biased;` first.

use super::Finding;
use super::source::Source;

pub(crate) fn check(source: &Source, found: &mut Vec<Finding>) {
    for (at, word) in source.code.match_indices("select!") {
        let body = source.code[at + word.len()..].trim_start().trim_start_matches(['{', '(', '[']).trim_start();
        // `use tokio::select;` and its like have no body; a macro of another name ends in our word.
        let ours = source.code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if ours && !body.starts_with("biased;") {
            found.push(Finding {
                file: source.path.clone(),
                line: source.line_of(at),
                rule: "select",
                what: "select! without `biased;` as its first word".into(),
                reason: "tokio rolls dice for the order, which no seed repeats, and a drain may lose to a busy peer",
                cure: "write `biased;` and order the arms: drain, timers, peer, local".into(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let mut found = Vec::new();
        check(&Source::new("tunnel/src/driver.rs", text.to_owned(), 0), &mut found);
        found.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_select_without_an_order_is_found() {
        assert_eq!(lines("fn a() {\n    tokio::select! {\n        x = y => {}\n    }\n}\n"), [2]);
        assert_eq!(lines("select!(x = y => {})"), [1]);
    }

    #[test]
    fn a_select_with_an_order_or_in_words_is_not() {
        assert_eq!(lines("tokio::select! {\n    // Drain first.\n    biased;\n    x = y => {}\n}\n"), [0; 0]);
        assert_eq!(lines("// select! is biased here\nlet a = \"select!\";"), [0; 0]);
    }
}
