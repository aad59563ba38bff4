//! HTTP/1.1 read by the letter (RFC 9112), without any of the kindness that parsers have for each other.

use anyhow::{Context, Result, bail, ensure};

/// A request as the far end has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// GET, POST, …
    pub method: String,
    /// What stands between method and version.
    pub target: String,
    /// Names in lower case, values as they came, sorted.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Without its framing.
    pub body: Vec<u8>,
}

/// An answer as a caller has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, values as they came, sorted.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// All of the body is there.
    pub is_whole: bool,
}

/// The request at the front of `bytes` and its length; none while it is not all there.
///
/// # Errors
/// It is none, or could be read in more ways than one.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>> {
    let Some((line, fields, head_len)) = head(bytes)? else { return Ok(None) };
    let words: Vec<_> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { bail!("a request line {line:?}") };
    ensure!(method.bytes().all(is_token) && !method.is_empty(), "a method {method:?}");
    ensure!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() || byte >= 0x80), "a target {target:?}");
    let framing = framing(&fields)?.unwrap_or(Framing::Length(0));
    let Some((body, body_len)) = body(&bytes[head_len..], framing)? else { return Ok(None) };
    let request = Request { method: method.to_owned(), target: target.to_owned(), fields, body };
    Ok(Some((request, head_len + body_len)))
}

/// The head of the request at the front of `bytes`, as one without a body, and its length.
///
/// # Errors
/// It is none.
pub(super) fn request_head(bytes: &[u8]) -> Result<Option<(Request, usize)>> {
    let Some((line, fields, len)) = head(bytes)? else { return Ok(None) };
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().context("no method")?, words.next().context("no target")?);
    Ok(Some((Request { method, target, fields, body: Vec::new() }, len)))
}

/// The answer to `method` at the front of `bytes`, with its length; of a connection that has ended it may be cut short.
/// None while it is not all there.
///
/// # Errors
/// It is none, or could be read in more ways than one.
pub fn answer(bytes: &[u8], method: &str, has_ended: bool) -> Result<Option<(Answer, usize)>> {
    let Some((line, fields, head_len)) = head(bytes)? else { return Ok(None) };
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
    let status: u16 = status.and_then(|status| status.parse().ok()).with_context(|| format!("a status line {line:?}"))?;
    let framing = framing(&fields)?;
    let is_bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
    let rest = &bytes[head_len..];
    let framing = if is_bodiless { Framing::Length(0) } else { framing.unwrap_or(Framing::Length(rest.len())) };
    let whole = |body, is_whole| Answer { status, fields: fields.clone(), body, is_whole };
    match body(rest, framing)? {
        Some((body, len)) => Ok(Some((whole(body, true), head_len + len))),
        None if has_ended => Ok(Some((whole(rest.to_vec(), false), bytes.len()))),
        None => Ok(None),
    }
}

/// Where a body ends.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

type Fields = Vec<(String, Vec<u8>)>;

fn head(bytes: &[u8]) -> Result<Option<(String, Fields, usize)>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let shown = &bytes[..end.unwrap_or(bytes.len())];
    // The second half of a line's end may not be there yet.
    let complete = shown.strip_suffix(b"\r").unwrap_or(shown);
    for line in split_lines(complete) {
        ensure!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a line with its end inside: {}", text(line));
    }
    let Some(end) = end else { return Ok(None) };
    let mut lines = split_lines(&bytes[..end]);
    let first = String::from_utf8(lines.next().unwrap_or_default().to_vec()).context("a first line that is no text")?;
    let mut fields = lines.map(field).collect::<Result<Vec<_>>>()?;
    fields.sort();
    Ok(Some((first, fields, end + 4)))
}

fn split_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = bytes.windows(2).position(|window| window == b"\r\n");
        rest = end.map(|end| &bytes[end + 2..]);
        Some(&bytes[..end.unwrap_or(bytes.len())])
    })
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':').with_context(|| format!("no field: {}", text(line)))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    ensure!(!name.is_empty() && name.iter().all(|byte| is_token(*byte)), "a name {}", text(name));
    ensure!(value.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t'), "a value {}", text(value));
    Ok((text(name).to_ascii_lowercase(), value.to_vec()))
}

fn framing(fields: &Fields) -> Result<Option<Framing>> {
    let all = |name: &str| fields.iter().filter(|(field, _)| field == name).map(|(_, value)| text(value)).collect::<Vec<_>>();
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Ok(None),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(Framing::Length(length.parse()?))),
        ([], [coding]) if coding == "chunked" => Ok(Some(Framing::Chunked)),
        (lengths, codings) => bail!("lengths {lengths:?} and codings {codings:?}"),
    }
}

/// The body at the front of `bytes`, and its length with its framing; none while it is not all there.
fn body(bytes: &[u8], framing: Framing) -> Result<Option<(Vec<u8>, usize)>> {
    match framing {
        Framing::Length(len) => Ok(bytes.get(..len).map(|body| (body.to_vec(), len))),
        Framing::Chunked => chunked(bytes),
    }
}

fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = text(&rest[..end]);
        ensure!(
            !size.is_empty() && size.len() <= 8 && size.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "a chunk size {size:?}"
        );
        let size = usize::from_str_radix(&size, 16)?;
        at += end + 2;
        let rest = &bytes[at..];
        if size == 0 {
            // Trailers would be seen as what is not the empty line.
            return match rest.get(..2) {
                Some(b"\r\n") => Ok(Some((body, at + 2))),
                Some(_) => bail!("trailers {}", text(rest)),
                None => Ok(None),
            };
        }
        let Some(chunk) = rest.get(..size + 2) else { return Ok(None) };
        ensure!(chunk.ends_with(b"\r\n"), "a chunk that is longer than it says");
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
