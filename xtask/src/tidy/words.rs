//! Words that may not stand where they stand.

use super::Finding;
use super::source::Source;

/// Where a word is looked for.
enum Place {
    /// Every text, comments and all.
    Everywhere,
    /// Everywhere but the script that knows this machine.
    EverywhereButCi,
    /// Rust code, not its comments and literals.
    Code,
    /// The code of crates that ship, before their tests.
    Product,
    /// The code of tests.
    Tests,
}

struct Word {
    word: &'static str,
    place: Place,
    reason: &'static str,
    cure: &'static str,
}

/// The table. Some words are put together here so that this file does not contain them.
const WORDS: [Word; 9] = [
    Word {
        word: concat!("FIX", "ME"),
        place: Place::Everywhere,
        reason: "a note to ourselves is read by nobody else and kept for years",
        cure: "do it, or file it",
    },
    Word {
        word: concat!("X", "XX"),
        place: Place::Everywhere,
        reason: "a note to ourselves is read by nobody else and kept for years",
        cure: "do it, or file it",
    },
    Word {
        word: concat!("/wo", "rk/"),
        place: Place::Everywhere,
        reason: "a path of one machine means nothing on another",
        cure: "name it relative to the root",
    },
    Word {
        word: concat!("../sha", "red"),
        place: Place::EverywhereButCi,
        reason: "a clone stands alone",
        cure: "put what is needed into the tree",
    },
    Word {
        word: ".unwrap()",
        place: Place::Product,
        reason: "it ends a process that carries a whole fleet, and says nothing",
        cure: "return the error, or `expect` the invariant that only a bug breaks",
    },
    Word {
        word: "#[ignore",
        place: Place::Code,
        reason: "a test that never runs proves nothing and looks as if it did",
        cure: "mend it or remove it; what needs a cluster prints SKIPPED",
    },
    Word {
        word: "#[should_panic",
        place: Place::Code,
        reason: "it passes whichever line panics",
        cure: "return an error and assert it",
    },
    Word {
        word: "cfg(feature",
        place: Place::Product,
        reason: "what is tested would not be what ships",
        cure: "inject by Host and config",
    },
    Word {
        word: "sleep(",
        place: Place::Tests,
        reason: "it is too short on a loaded machine and too long on an idle one",
        cure: "wait for the event; in stories, say within, holds_for or never",
    },
];

pub(crate) fn check(source: &Source, found: &mut Vec<Finding>) {
    let n_production = source.n_production_lines();
    for word in &WORDS {
        let (text, lines) = match word.place {
            Place::Everywhere => (&source.text, 0..usize::MAX),
            Place::EverywhereButCi if source.path == ".ci/run" => continue,
            Place::EverywhereButCi => (&source.text, 0..usize::MAX),
            Place::Code => (&source.code, 0..usize::MAX),
            Place::Product if !source.is_product() => continue,
            Place::Product => (&source.code, 0..n_production),
            // The simulated network's own tests are about time, and it is paused.
            Place::Tests if source.path.starts_with("sim/src/") => continue,
            Place::Tests => (&source.code, n_production..usize::MAX),
        };
        let hits = text.lines().enumerate().filter(|(index, line)| lines.contains(index) && stands_in(line, word.word));
        found.extend(hits.map(|(index, _)| Finding {
            file: source.path.clone(),
            line: index + 1,
            rule: "words",
            what: format!("{:?} stands here", word.word),
            reason: word.reason,
            cure: word.cure.into(),
        }));
    }
}

/// Whether `line` contains `word`, not as part of a longer one.
fn stands_in(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(letter);
        let after = line[at + word.len()..].chars().next().is_some_and(letter);
        let longer = before && word.starts_with(letter) || after && word.ends_with(letter);
        !longer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let mut found = Vec::new();
        check(&Source::new(path, text.to_owned(), 0), &mut found);
        found.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn every_word_of_the_table_is_found_where_it_may_not_stand() {
        for word in &WORDS {
            let path = match word.place {
                Place::Everywhere | Place::EverywhereButCi | Place::Code | Place::Product => "agent/src/serve.rs",
                Place::Tests => "agent/tests/serve.rs",
            };
            assert_eq!(lines(path, &format!("//! Doc.\n\n x {}", word.word)), [3], "{}", word.word);
        }
    }

    #[test]
    fn product_words_may_stand_in_tests_and_strings() {
        assert_eq!(lines("agent/src/a.rs", "//! `.unwrap()`\nlet a = \".unwrap()\"; // .unwrap()\n"), [0; 0]);
        assert_eq!(lines("agent/src/a.rs", "//! Doc.\n#[cfg(test)]\nmod tests {\n    a.unwrap();\n}\n"), [0; 0]);
        assert_eq!(lines("e2e/src/a.rs", "//! Doc.\na.unwrap();\n"), [0; 0]);
    }

    #[test]
    fn a_test_inside_a_product_file_may_not_sleep_either() {
        assert_eq!(lines("agent/src/a.rs", "//! Doc.\n#[cfg(test)]\nmod tests {\n    sleep(1);\n}\n"), [4]);
        assert_eq!(lines("agent/src/a.rs", "//! Doc.\nsleep(backoff).await;\n"), [0; 0]);
        assert_eq!(lines("sim/tests/stories/a.rs", "//! Doc.\nsleep(late).await;\n"), [2]);
        assert_eq!(lines("sim/src/fabric/tests.rs", "//! Doc.\nsleep(late).await;\n"), [0; 0]);
    }

    #[test]
    fn longer_words_are_other_words() {
        assert_eq!(lines("a.md", concat!("PREFIX", "MENT and XX", "XX")), [0; 0]);
    }
}
