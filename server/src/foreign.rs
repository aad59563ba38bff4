//! Foreign text: what an agent or an API server chose, made fit to be shown to people.

use std::fmt::Write;

/// What stands for the rest of a text that is too long.
const MORE: char = '…';

/// `text` in at most `bytes_max` bytes, without what could make it look like another: characters that are not seen, or that
/// order others anew, are written as `\u{..}`. Blanks of any kind become one space.
pub(crate) fn shown(text: &str, bytes_max: usize) -> String {
    let room = bytes_max.saturating_sub(MORE.len_utf8());
    let mut out = String::new();
    let mut piece = String::new();
    for c in text.trim().chars() {
        piece.clear();
        match c {
            _ if c.is_whitespace() && out.ends_with(' ') => {}
            '\t' | '\n' | '\r' | ' ' => piece.push(' '),
            // Writing to a String does not fail.
            _ if is_unseen(c) => drop(write!(piece, "{}", c.escape_unicode())),
            _ => piece.push(c),
        }
        if out.len() + piece.len() > room {
            out.push(MORE);
            break;
        }
        out.push_str(&piece);
    }
    out
}

/// Whether a character is a control character, orders the text (Unicode Standard Annex 9), has no width, or is a blank that
/// looks like a space and is none.
fn is_unseen(c: char) -> bool {
    let is_listed = matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    );
    c.is_control() || is_listed || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_or_turns_others_around_is_written_out() {
        assert_eq!(
            shown("a\u{202e}b\u{2066}c\u{200b}\0\u{1b}[31m\u{feff}", 256),
            r"a\u{202e}b\u{2066}c\u{200b}\u{0}\u{1b}[31m\u{feff}"
        );
        assert_eq!(shown("  two\r\n\tlines ", 256), "two lines");
        assert_eq!(shown("no\u{a0}break", 256), r"no\u{a0}break");
        assert_eq!(shown("Zürich <b>&amp;</b> 東京", 256), "Zürich <b>&amp;</b> 東京", "who writes it out escapes it");
    }

    #[test]
    fn a_text_is_never_longer_than_it_may_be() {
        assert_eq!(shown("short", 8), "short");
        for c in ['x', 'é', '東', '\u{202e}', ' '] {
            let cut = shown(&format!("{c}y").repeat(10_000), 64);
            assert!(cut.len() <= 64 && cut.ends_with(MORE), "{cut:?}");
        }
    }
}
