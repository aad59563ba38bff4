//! `health`: asks a program's own health listener, for probes where there is no shell and no curl.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use host::tls::{Alpn, ClientFiles, ClientTls};
use host::{Drain, Host, HttpUrl, LogLevel, Workers};
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};

use crate::flags::{ConfigError, Flag};
use crate::program::{self, Command, ProcessConfig, StartError};

/// The word that asks for it.
const WORD: &str = "health";

/// Longer than a healthy program ever takes, shorter than a probe that hangs should hold its kubelet.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest answer that is read: a sentence, or a Kubernetes Status.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How much of an answer is shown.
const SHOWN_CHARS_MAX: usize = 300;

/// What did not answer well, as exit code.
const UNHEALTHY: u8 = 1;

/// Asks for readiness.
pub const READY: Flag = Flag::switch("ready", "Ask whether it is ready, not only whether it lives");

/// Whether the first word of a command line asks for it.
pub fn is_asked_for(word: &str) -> bool {
    word == WORD
}

/// Whom to ask, and as whom.
#[derive(Debug)]
pub struct Question {
    /// A `GET` of it is answered with 2xx where all is well.
    pub url: HttpUrl,
    /// For https.
    pub tls: ClientFiles,
    /// Bearer token.
    pub token: Option<SecretString>,
}

impl Question {
    /// The listener at `addr` of this machine.
    pub fn to_listener(mut addr: SocketAddr, path: &str) -> Self {
        if addr.ip().is_unspecified() {
            // Who listens on all interfaces, written :8080, may have no IPv6: IPv4 is there in either case.
            addr.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let host = match addr {
            SocketAddr::V4(addr) => addr.ip().to_string(),
            SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
        };
        let url = HttpUrl { tls: false, host, port: addr.port(), path: path.to_owned() };
        Self { url, tls: ClientFiles { ca: None, identity: None, insecure: false }, token: None }
    }
}

/// Asks what a command line came to, and is the end of the process.
pub fn main(program: &'static str, asked: Result<Command<Question>, Vec<ConfigError>>) -> ExitCode {
    let quiet = ProcessConfig { log_level: LogLevel::Error, workers: Workers::Exactly(1) };
    program::main(program, asked, move |_| quiet, run)
}

async fn run(question: Question, host: Host, _: Drain) -> Result<(), StartError> {
    let url = question.url.to_string();
    let silent = || format!("no answer within {} s", ANSWER_MAX.as_secs());
    let answered = tokio::time::timeout(ANSWER_MAX, ask(question, &host)).await.unwrap_or_else(|_| Err(silent()));
    match answered {
        Ok(said) => {
            // Who does not read it knows by the exit code.
            let _ = writeln!(io::stdout(), "{url}: {said}");
            Ok(())
        }
        Err(why) => Err(StartError::Failed { why: format!("{url}: {why}"), exit_code: UNHEALTHY }),
    }
}

/// Status and text of a good answer.
///
/// # Errors
/// Why there is none, in words.
async fn ask(Question { url, tls, token }: Question, host: &Host) -> Result<String, String> {
    let name = url.host.trim_start_matches('[').trim_end_matches(']');
    let mut connection = host.dial(name, url.port).await.map_err(|error| format!("cannot be reached: {error}"))?;
    if url.tls {
        let tls = ClientTls::new(host, "health", tls).map_err(|error| error.to_string())?;
        let connected = tls.connect(connection, name, Alpn::Http1).await;
        connection = connected.map_err(|error| format!("TLS failed: {error}"))?.0;
    }
    let broken = |error: hyper::Error| format!("broke off: {error}");
    let (mut sender, exchange) = http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
    host.spawn("health question", async move {
        // Its error arrives with the answer.
        let _ = exchange.await;
    });
    let mut request = Request::get(&url.path).header(HOST, format!("{}:{}", url.host, url.port));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
    let said = format!("{status}: {text}");
    if status.is_success() { Ok(said) } else { Err(said) }
}
