//! One request in plain HTTP/1.1: whether a way leads to the upstream, and what a server tells of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Longer than the server waits for a tunnel that was just lost.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The status of one answer.
pub(crate) fn status_of(address: SocketAddr, path: &str) -> Result<u16> {
    let mut line = String::new();
    BufReader::new(ask(address, path)?).read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no HTTP answer: {line:?}"))
}

/// What the metric `name` says, one without labels, of a server or agent that has its metrics on `address`.
pub(crate) fn metric(address: SocketAddr, name: &str) -> Result<f64> {
    let mut text = String::new();
    ask(address, "/metrics")?.read_to_string(&mut text)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("http://{address}/metrics does not tell {name}"))
}

fn ask(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    // In one piece: who answers after the first line may close before a second is written.
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_status_of_an_answer_is_read() {
        let address = answers("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(status_of(address, "/version").unwrap(), 503);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let address = answers("HTTP/1.1 200 OK\r\n\r\nagents_connected_ever 9\nagents_connected 7\n# EOF\n");
        assert_eq!(metric(address, "agents_connected").unwrap(), 7.0);
    }

    /// Where one request is answered with `text`.
    fn answers(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 512]).unwrap() > 0);
            socket.write_all(text.as_bytes()).unwrap();
        });
        address
    }
}
