//! The tables: cases as text, read into bytes.
//!
//! A case begins with `[name]`, or `[h2 name]` where frames are meant. Lines of `>` are said, of `=` arrive, of `~` in part or not at all, of `<` are the statuses that come back; `then` is what becomes of a harmless request behind it. Each line of `>` ends
//! in CRLF unless it ends in a backslash. Escapes: `\r \n \t \0 \\ \xHH`, and `\{text*n}` for many.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use super::far_end::NEXT;
use super::frames::{self, Parts};
use super::strict::Request;

/// How the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or what looks like it.
    Http1,
    /// Frames of HTTP/2, by prior knowledge.
    Http2,
}

/// What becomes of the harmless request behind a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It arrives, and its own answer comes back.
    Served,
    /// The connection has ended.
    Closed,
    /// It is taken for more of the body before it: the case has said less than it announced.
    Swallowed,
    /// It passes as bytes of the protocol that was switched to.
    Switched,
}

/// Hostile words of a caller.
#[derive(Debug, Clone)]
pub struct Case {
    /// What they are.
    pub name: String,
    /// How they are said.
    pub protocol: Protocol,
    /// The words.
    pub said: Vec<u8>,
    /// Requests at the far end, without what server and agent add to each.
    pub arrives: Vec<Request>,
    /// Only the beginning of the last of them arrives, or nothing of it.
    pub breaks_off: bool,
    /// Statuses of the answers; of HTTP/2 also `reset` and `goaway`.
    pub answers: Vec<String>,
    /// What follows.
    pub then: Then,
}

/// Hostile words of an API server.
#[derive(Debug, Clone)]
pub struct AnswerCase {
    /// What they are.
    pub name: String,
    /// The words.
    pub said: Vec<u8>,
    /// What a caller is told who asked without a body, and with one: a status, and its body where it is not a refusal's.
    pub told: [(String, Vec<u8>); 2],
}

/// The cases of `testdata/requests.txt`.
///
/// # Errors
/// A line that means nothing.
pub fn requests() -> Result<Vec<Case>> {
    entries(include_str!("../../testdata/requests.txt"))?.iter().map(Entry::request).collect()
}

/// The cases of `testdata/answers.txt`.
///
/// # Errors
/// A line that means nothing.
pub fn answers() -> Result<Vec<AnswerCase>> {
    entries(include_str!("../../testdata/answers.txt"))?.iter().map(Entry::answer).collect()
}

impl Case {
    /// A harmless question for `path`, with a body if it is a POST.
    pub fn asking(protocol: Protocol, method: &str, path: &str) -> Self {
        let target = format!("/tunnel/edge-1{path}");
        let data = (method == "POST").then(|| b"abc".to_vec());
        let said = match (protocol, &data) {
            (Protocol::Http1, None) => format!("{method} {target} HTTP/1.1\r\nhost: hub\r\n\r\n").into_bytes(),
            (Protocol::Http1, Some(_)) => {
                format!("{method} {target} HTTP/1.1\r\nhost: hub\r\ncontent-length: 3\r\n\r\nabc").into_bytes()
            }
            (Protocol::Http2, _) => {
                let fields = [(":method", method), (":scheme", "http"), (":authority", "hub"), (":path", &target)];
                let fields = fields.map(|(name, value)| (name.into(), value.into())).to_vec();
                [frames::preface(), frames::request(1, &Parts { fields, data, trailers: None })].concat()
            }
        };
        let (name, arrives, answers) = (path.to_owned(), Vec::new(), Vec::new());
        Self { name, protocol, said, arrives, breaks_off: false, answers, then: Then::Served }
    }

    /// The words with a harmless request behind them, which asks to be the last.
    pub fn said_with_next(&self) -> Vec<u8> {
        [&self.said[..], &self.next(true)].concat()
    }

    /// A harmless request on the same connection.
    pub fn next(&self, is_last: bool) -> Vec<u8> {
        let target = format!("/tunnel/edge-1{NEXT}");
        let option = if is_last { "connection: close\r\n" } else { "" };
        match self.protocol {
            Protocol::Http1 => format!("GET {target} HTTP/1.1\r\nhost: hub\r\n{option}\r\n").into_bytes(),
            Protocol::Http2 => {
                let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "hub"), (":path", &target)];
                let fields = fields.map(|(name, value)| (name.into(), value.into())).to_vec();
                frames::request(3, &Parts { fields, data: None, trailers: None })
            }
        }
    }
}

/// A case before its lines have a meaning.
struct Entry {
    name: String,
    lines: Vec<(String, String)>,
}

fn entries(text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            ensure!(entries.iter().all(|entry| entry.name != name), "line {number}: a second [{name}]");
            entries.push(Entry { name: name.to_owned(), lines: Vec::new() });
            continue;
        }
        let entry = entries.last_mut().with_context(|| format!("line {number}: no case has begun"))?;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        entry.lines.push((mark.to_owned(), rest.to_owned()));
    }
    Ok(entries)
}

impl Entry {
    fn request(&self) -> Result<Case> {
        let (protocol, name) = match self.name.strip_prefix("h2 ") {
            Some(_) => (Protocol::Http2, self.name.clone()),
            None => (Protocol::Http1, self.name.clone()),
        };
        let said = match protocol {
            Protocol::Http1 => self.bytes(">")?,
            Protocol::Http2 => [frames::preface(), frames::request(1, &self.parts()?)].concat(),
        };
        let whole = self.arrivals("=").with_context(|| self.name.clone())?;
        let part = self.arrivals("~").with_context(|| self.name.clone())?;
        let breaks_off = !part.is_empty();
        let arrives = whole.into_iter().chain(part).collect();
        let answers = self.words("<").flat_map(|words| words.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        let then = self.words("then").next().with_context(|| format!("[{}] says nothing of then", self.name))?.parse()?;
        Ok(Case { name, protocol, said, arrives, breaks_off, answers, then })
    }

    fn answer(&self) -> Result<AnswerCase> {
        let told = |mark: &str| {
            let words = self.words(mark).next().with_context(|| format!("[{}] says nothing of {mark}", self.name))?;
            let (status, body) = words.split_once(' ').unwrap_or((words, ""));
            Ok::<_, Error>((status.to_owned(), unescaped(body)?))
        };
        Ok(AnswerCase { name: self.name.clone(), said: self.bytes(">")?, told: [told("get")?, told("post")?] })
    }

    fn words<'a>(&'a self, mark: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |(of, _)| of == mark).map(|(_, words)| words.as_str())
    }

    fn bytes(&self, mark: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for line in self.words(mark) {
            let (line, end) = line.strip_suffix('\\').map_or((line, &b"\r\n"[..]), |line| (line, b""));
            bytes.extend(unescaped(line).with_context(|| self.name.clone())?);
            bytes.extend(end);
        }
        Ok(bytes)
    }

    /// Fields up to an empty line, data up to a second one, trailers behind it.
    fn parts(&self) -> Result<Parts> {
        let lines: Vec<_> = self.words(">").collect();
        let mut blocks = lines.split(|line| line.is_empty());
        let fields = blocks.next().unwrap_or_default().iter().map(|line| h2_field(line)).collect::<Result<_>>()?;
        let data = blocks.next().map(|lines| unescaped(&lines.concat())).transpose()?;
        let trailers = blocks.next().map(|lines| lines.iter().map(|line| h2_field(line)).collect::<Result<_>>()).transpose()?;
        Ok(Parts { fields, data, trailers })
    }

    /// `METHOD TARGET`, fields, an empty line, the body; another begins behind a line of four dashes.
    fn arrivals(&self, mark: &str) -> Result<Vec<Request>> {
        let lines: Vec<_> = self.words(mark).collect();
        lines.split(|line| *line == "----").filter(|lines| !lines.is_empty()).map(arrival).collect()
    }
}

fn arrival(lines: &[&str]) -> Result<Request> {
    let (first, rest) = lines.split_first().context("nothing")?;
    let (method, target) = first.split_once(' ').with_context(|| format!("no request: {first}"))?;
    let target = String::from_utf8_lossy(&unescaped(target)?).into_owned();
    let (fields, body) = rest.split_at(rest.iter().position(|line| line.is_empty()).unwrap_or(rest.len()));
    let field = |line: &&str| {
        let (name, value) = line.split_once(": ").with_context(|| format!("no field: {line}"))?;
        Ok((name.to_owned(), unescaped(value)?))
    };
    let mut fields = fields.iter().map(field).collect::<Result<Vec<_>>>()?;
    fields.sort();
    Ok(Request { method: method.to_owned(), target, fields, body: unescaped(&body.concat())? })
}

fn h2_field(line: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    Ok((unescaped(name)?, unescaped(value)?))
}

impl FromStr for Then {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "served" => Self::Served,
            "closed" => Self::Closed,
            "swallowed" => Self::Swallowed,
            "switched" => Self::Switched,
            _ => bail!("then {word}?"),
        })
    }
}

fn unescaped(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.bytes());
        let escape = after.chars().next().context("a backslash at the end")?;
        rest = &after[escape.len_utf8()..];
        match escape {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            's' => bytes.push(b' '),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let (hex, after) = rest.split_at_checked(2).context("a short escape")?;
                bytes.push(u8::from_str_radix(hex, 16)?);
                rest = after;
            }
            '{' => {
                let (many, after) = rest.split_once('}').context("no end of {")?;
                let (what, n) = many.rsplit_once('*').context("no number of times")?;
                bytes.extend(unescaped(what)?.repeat(n.parse()?));
                rest = after;
            }
            other => bail!("no escape: \\{other}"),
        }
    }
    bytes.extend(rest.bytes());
    Ok(bytes)
}
