//! The line discipline of a terminal: echoes keys, edits the line, turns control keys into what they mean.

/// What a key does.
#[derive(Debug, PartialEq)]
pub(crate) enum Key {
    /// Shown to the person who types.
    Echo(Vec<u8>),
    /// A whole line, with its line feed.
    Line(Vec<u8>),
    /// Ctrl-D on an empty line.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// The longest line that can be typed, as of Linux (`N_TTY_BUF_SIZE`).
const LINE_MAX: usize = 4096;

/// What a terminal says to a key that it cannot take.
const BELL: u8 = 0x07;

/// A terminal in its usual ("cooked") mode.
#[derive(Default)]
pub(crate) struct Terminal {
    line: Vec<u8>,
}

impl Terminal {
    /// What the typed `bytes` do, in order.
    pub(crate) fn keys(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().flat_map(|byte| self.key(*byte)).collect()
    }

    fn key(&mut self, byte: u8) -> Vec<Key> {
        match byte {
            b'\r' | b'\n' => {
                let mut line = std::mem::take(&mut self.line);
                line.push(b'\n');
                vec![Key::Echo(b"\n".to_vec()), Key::Line(line)]
            }
            0x03 => {
                self.line.clear();
                vec![Key::Echo(b"^C\n".to_vec()), Key::Interrupt]
            }
            0x04 if self.line.is_empty() => vec![Key::End],
            // Ctrl-D in a line hands over what was typed so far.
            0x04 => vec![Key::Line(std::mem::take(&mut self.line))],
            0x08 | 0x7f => match self.line.pop() {
                Some(_) => vec![Key::Echo(b"\x08 \x08".to_vec())],
                None => Vec::new(),
            },
            _ if self.line.len() == LINE_MAX => vec![Key::Echo(vec![BELL])],
            byte => {
                self.line.push(byte);
                vec![Key::Echo(vec![byte])]
            }
        }
    }
}

/// Every line feed with a carriage return before it.
pub(crate) fn with_carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_echoed_edited_and_handed_over_by_the_line() {
        let mut terminal = Terminal::default();
        let echo = |text: &str| Key::Echo(text.as_bytes().to_vec());
        let keys = terminal.keys(b"ax\x7fb\r\x04\x03");
        let wanted = [
            echo("a"),
            echo("x"),
            echo("\x08 \x08"),
            echo("b"),
            echo("\n"),
            Key::Line(b"ab\n".to_vec()),
            Key::End,
            echo("^C\n"),
            Key::Interrupt,
        ];
        assert_eq!(keys, wanted);
    }
}
