//! The files that the rules read: a text, and for Rust the same text without comments and literals.

use std::io;
use std::path::Path;

/// One file of the tree.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// The bytes as text; empty when they are none.
    pub(crate) text: String,
    /// Rust with comments, strings and chars blanked, each byte in its place; empty for other files.
    pub(crate) code: String,
    /// Bytes on disk.
    pub(crate) size: u64,
}

impl Source {
    /// A source from its parts.
    pub(crate) fn new(path: &str, text: String, size: u64) -> Self {
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        Self { path: path.to_owned(), text, code, size }
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is tests.
    pub(crate) fn is_tests(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/benches/")
    }

    /// Whether it is a source of a crate that ships.
    pub(crate) fn is_product(&self) -> bool {
        self.is_rust()
            && ["host/src/", "tunnel/src/", "proxy/src/", "server/src/", "agent/src/"]
                .iter()
                .any(|dir| self.path.starts_with(dir))
    }

    /// How many lines come before the tests at the end.
    pub(crate) fn n_production_lines(&self) -> usize {
        if self.is_tests() {
            return 0;
        }
        let lines: Vec<_> = self.code.lines().collect();
        let inline =
            lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
        inline.unwrap_or(lines.len())
    }

    /// The number of the line, from 1, that holds the byte at `offset`.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
    }
}

/// Every file under `root` but what cargo and git keep for themselves.
pub(crate) fn all(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn walk(root: &Path, dir: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && !matches!(entry.file_name().to_str(), Some(".git" | "target")) {
            walk(root, &path, sources)?;
        }
        if kind.is_file() {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                // An editor's or a test's own file that has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let size = bytes.len() as u64;
            let relative = path.strip_prefix(root).expect("walk stays under its root").to_string_lossy().replace('\\', "/");
            sources.push(Source::new(&relative, String::from_utf8(bytes).unwrap_or_default(), size));
        }
    }
    Ok(())
}

/// Rust source with the content of comments, strings and chars replaced by spaces; newlines stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if let Some(end) = end {
            let end = end.min(bytes.len());
            out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
            at = end;
        } else {
            // A whole word at once, so that the `r` of `for` starts no raw string.
            let word = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            at += word.max(1);
        }
    }
    String::from_utf8(out).expect("whole literals are replaced by spaces")
}

/// Where the comment or literal that starts at `at` ends, if one does.
fn token_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        at + found.map_or(rest.len(), |found| from + found + end.len())
    };
    if rest.starts_with(b"//") {
        return Some(until(b"\n", 0) - usize::from(rest.contains(&b'\n')));
    }
    if rest.starts_with(b"/*") {
        return Some(until(b"*/", 2));
    }
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count().min(2);
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest[..prefix].ends_with(b"r") && rest.get(prefix + hashes) == Some(&b'"') {
        let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        return Some(until(&close, prefix + hashes + 1));
    }
    match rest.get(prefix)? {
        b'"' if !rest[..prefix].ends_with(b"r") => Some(at + quoted(rest, prefix)),
        b'\'' => {
            // `'a'` and `'\n'` are chars, `'a` a lifetime.
            let escaped = rest.get(prefix + 1) == Some(&b'\\');
            let width = std::str::from_utf8(&rest[prefix + 1..]).ok()?.chars().next()?.len_utf8();
            (escaped || rest.get(prefix + 1 + width) == Some(&b'\'')).then(|| at + quoted(rest, prefix))
        }
        _ => None,
    }
}

/// The length of the quoted literal whose opening quote is at `open`.
fn quoted(rest: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < rest.len() && rest[at] != rest[open] {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b\nc */ d", "a     \n     d"),
            (r#"f("x \" y") + 1"#, "f(        ) + 1"),
            (r##"f(r#"x " y"#, b'"')"##, "f(          ,     )"),
            ("f::<'a>('b', '\\'')", "f::<'a>(   ,     )"),
            ("for x in \"a\"", "for x in    "),
            ("\"ä\" b", "     b"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn production_ends_where_the_inline_tests_begin() {
        let text = "//! Doc.\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(Source::new("host/src/a.rs", text.to_owned(), 0).n_production_lines(), 2);
        assert_eq!(Source::new("sim/tests/a.rs", text.to_owned(), 0).n_production_lines(), 0);
        let beside = "//! Doc.\n#[cfg(test)]\nmod tests;\nfn a() {}\n";
        assert_eq!(Source::new("host/src/a.rs", beside.to_owned(), 0).n_production_lines(), 4);
    }
}
