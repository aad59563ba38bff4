//! The little HTTP that boxes speak: heads, refusals, CONNECT.

use std::io;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use host::{Connection, Host};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a proxy takes of a head: more than any that comes here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// As nginx says it when nobody listens behind it.
pub(super) const BAD_GATEWAY: &str = "502 Bad Gateway";

/// As squid says it of a place that is in no list of its rules.
pub(super) const FORBIDDEN: &str = "403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0";

const UNAUTHENTICATED: &str = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"the way out\"";
const NOT_ALLOWED: &str = "405 Method Not Allowed";

pub(super) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A head and what was read behind it.
pub(super) struct Head {
    pub(super) text: String,
    pub(super) behind: Bytes,
}

/// Reads up to the end of a head.
pub(super) async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut bytes = BytesMut::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = bytes.split_to(end + 4);
            return Ok(Head { text: String::from_utf8_lossy(&head).into_owned(), behind: bytes.freeze() });
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Answers with a status, closes, and waits for the peer to do so: what it sent meanwhile must not reset the answer.
pub(super) async fn refuse(to: &mut (impl AsyncRead + AsyncWrite + Unpin), status: &str) -> io::Result<()> {
    let body = "<html><body><center><h1>no</h1></center></body></html>\r\n";
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    to.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    to.shutdown().await?;
    while to.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// A head as a gateway passes it on that knows no upgrades.
pub(super) fn without_upgrade(head: &str) -> String {
    let is_of_one_hop = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        ["upgrade", "connection"].iter().any(|one| name.eq_ignore_ascii_case(one))
    };
    head.split_inclusive("\r\n").filter(|line| !is_of_one_hop(line)).collect()
}

/// Where a CONNECT wants to go, or what it is answered.
pub(super) fn asked_of_proxy(head: &str, credentials: Option<&str>) -> Result<(String, u16), &'static str> {
    let mut lines = head.lines();
    let target = lines.next().and_then(|line| line.strip_prefix("CONNECT ")?.split_whitespace().next()).ok_or(NOT_ALLOWED)?;
    let target =
        target.rsplit_once(':').and_then(|(name, port)| Some((name.to_owned(), port.parse().ok()?))).ok_or(NOT_ALLOWED)?;
    let shown = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    let wanted = credentials.map(basic);
    match wanted {
        Some(wanted) if shown.is_none_or(|(_, value)| value.trim() != wanted) => Err(UNAUTHENTICATED),
        Some(_) | None => Ok(target),
    }
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

/// Dials `target` (`name:port`) through a CONNECT proxy, with `user:password` if there are any.
///
/// # Errors
/// The proxy cannot be dialled, or says no: then its status line.
pub async fn dial_through(host: &Host, proxy: &str, target: &str, credentials: Option<&str>) -> anyhow::Result<Connection> {
    let mut connection = host.dial(proxy, super::PROXY_PORT).await.context("the proxy cannot be dialled")?;
    let shown = credentials.map(|credentials| format!("Proxy-Authorization: {}\r\n", basic(credentials))).unwrap_or_default();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{shown}\r\n");
    connection.write_all(request.as_bytes()).await?;
    let head = read_head(&mut connection).await?;
    let status = head.text.lines().next().unwrap_or_default();
    anyhow::ensure!(status.starts_with("HTTP/1.1 200 "), "the proxy says {status}");
    anyhow::ensure!(head.behind.is_empty(), "bytes before anything was asked");
    Ok(connection)
}
