//! One request in plain HTTP/1.1, to see whether a way leads to the upstream.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Longer than the server waits for a tunnel that was just lost.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The status of one answer.
pub(crate) fn status_of(address: SocketAddr, path: &str) -> Result<u16> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no HTTP answer: {line:?}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_status_of_an_answer_is_read() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let n = socket.read(&mut [0; 512]).unwrap();
            socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
            n
        });
        assert_eq!(status_of(address, "/version").unwrap(), 503);
        assert!(answering.join().unwrap() > 0);
    }
}
