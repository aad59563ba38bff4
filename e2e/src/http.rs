//! The plainest HTTP/1.1 caller: one request, one connection, no retries, nothing added.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Longer than anything that a suite waits for in one answer (parking takes 10 s, a slow answer a few).
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Head lines after the status line, as they came.
    pub head: Vec<String>,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.iter().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// GETs `path` (every byte as given) from a plain listener.
///
/// # Errors
/// When there is no connection, or the answer is not whole.
pub fn get(addr: SocketAddr, path: &str) -> Result<Answer> {
    get_within(addr, path, SILENCE_MAX)
}

/// As [`get`], for who cannot wait: fails when nothing comes for `silence_max`.
pub fn get_within(addr: SocketAddr, path: &str, silence_max: Duration) -> Result<Answer> {
    request(addr, "GET", path, b"", silence_max)
}

/// POSTs `body` to `path`, as [`get`] does.
pub fn post(addr: SocketAddr, path: &str, body: &[u8]) -> Result<Answer> {
    request(addr, "POST", path, body, SILENCE_MAX)
}

fn request(addr: SocketAddr, method: &str, path: &str, body: &[u8], silence_max: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
    stream.set_read_timeout(Some(silence_max))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line).context("read the head")? > 0, "the connection closed in the head");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    ensure!(!lines.is_empty(), "an answer without a status line");
    let status = lines.remove(0).split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    let mut answer = Answer { status, head: lines, body: Vec::new() };
    answer.body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
        (Some(_), _) => chunks(&mut reader)?,
        (None, Some(length)) => {
            let mut body = vec![0; length.parse().context("content-length")?];
            reader.read_exact(&mut body).context("read the body")?;
            body
        }
        (None, None) => {
            let mut body = Vec::new();
            reader.read_to_end(&mut body).context("read the body")?;
            body
        }
    };
    Ok(answer)
}

/// A chunked body (RFC 9112 section 7.1); only the last chunk makes it whole.
fn chunks(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).context("read a chunk's size")?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("cut off in the body: {size:?}"))?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).context("read a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
