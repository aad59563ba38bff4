//! `postern-bench upstream`: what stands for the API server; it answers from memory, so that it is not what is measured.
//!
//! A request's way through the files: here (TLS, HTTP/1.1 or HTTP/2) ▶ `answer` (which body?) ▶ `body`, `pages`, `upgrade`.

mod answer;
mod body;
mod pages;
#[cfg(test)]
mod tests;
mod upgrade;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sim::certs::{Authority, Pem};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use answer::Upstream;

/// Fixed, so that who brings a peer of their own can write it into a configuration.
const DEFAULT_ADDR: &str = "127.0.0.1:16443";

/// The names under which it is reached.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// One for each core of the machine that the bars are written for.
const WORKER_THREADS: usize = 2;

/// Connections waiting to be accepted: a fleet of agents, or one agent each of a thousand callers, at once.
const BACKLOG: i32 = 4096;

/// Who does not finish a handshake by then is gone; on a machine that starts 5,000 agents one may wait long for its turn.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// A pause after an accept that failed, for want of file descriptors mostly: some connection may close meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// As the kube-apiserver has it (`http2-max-streams-per-connection`), so that agents open as many connections as in life.
const STREAMS_MAX: u32 = 250;

/// Of an upload, per frame: one frame is one chunk of ours, and 16 KiB would cost four times the headers.
const FRAME_BYTES: u32 = 64 << 10;

/// What one upload may have on its way; loopback fills it in a millisecond.
const STREAM_WINDOW: u32 = 4 << 20;

/// What all uploads of a connection may have on their way: four at full rate.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What one answer may have waiting in HTTP/2: sixteen chunks, so that the socket never waits for a task to wake.
const SEND_BUFFER_BYTES: usize = 1 << 20;

pub(crate) fn command() -> Command {
    let arg =
        |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    Command::new("upstream")
        .about("Is the upstream of the benchmark, over TLS, until SIGTERM; says where it listens as one line of JSON")
        .arg(
            arg("addr", "ADDR", "Where to listen; port 0 takes a free one")
                .default_value(DEFAULT_ADDR)
                .value_parser(value_parser!(SocketAddr)),
        )
        .arg(arg("cert", "FILE", "Certificate chain in PEM").requires("key"))
        .arg(arg("key", "FILE", "Its private key in PEM").requires("cert"))
        .arg(arg("out", "DIR", "Without --cert: where ca.pem of a fresh authority is written [default: a temporary folder]"))
}

pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    let text = |name| args.get_one::<String>(name).cloned();
    let (pem, ca) = match (text("cert"), text("key")) {
        (Some(cert), Some(key)) => (given(&cert, &key)?, None),
        _ => {
            let out = text("out").map_or_else(|| std::env::temp_dir().join("postern-bench-upstream"), PathBuf::from);
            let (pem, ca) = fresh()?;
            let path = out.join("ca.pem");
            std::fs::create_dir_all(&out).with_context(|| format!("failed to make the folder {}", out.display()))?;
            std::fs::write(&path, ca).with_context(|| format!("failed to write {}", path.display()))?;
            (pem, Some(path))
        }
    };
    let tls = server_config(&pem)?;
    let addr = *args.get_one("addr").context("--addr has a default")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = listen(addr)?;
        println!("{}", serde_json::json!({ "addr": listener.local_addr()?, "ca": ca }));
        tokio::select! {
            biased;
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            () = serve(listener, tls) => {}
        }
        Ok(())
    });
    // Watches never end by themselves.
    runtime.shutdown_background();
    result
}

fn given(cert: &str, key: &str) -> Result<Pem> {
    let read = |path: &str, flag| std::fs::read_to_string(path).with_context(|| format!("failed to read --{flag} {path}"));
    Ok(Pem { certificate: read(cert, "cert")?, key: read(key, "key")? })
}

/// A certificate for this machine, and the one of the authority that signed it.
fn fresh() -> Result<(Pem, String)> {
    let authority = Authority::new(SystemTime::now())?;
    Ok((authority.server("kube-apiserver", &LOCAL_NAMES)?, authority.pem().certificate))
}

fn server_config(pem: &Pem) -> Result<Arc<ServerConfig>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).context("the key's file holds no private key in PEM")?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.context("certificate and key do not fit together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Resumption as the kube-apiserver offers it, for as many connections as there are.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("failed to listen on {addr}; --addr names another"))
}

/// Answers whoever connects, for ever.
async fn serve(listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let upstream = Arc::new(Upstream::new());
    loop {
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(serve_connection(socket, acceptor.clone(), upstream.clone()))),
            Err(error) => {
                eprintln!("postern-bench upstream: failed to accept: {error}; `ulimit -n` may be too low");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(socket: TcpStream, acceptor: TlsAcceptor, upstream: Arc<Upstream>) {
    // An error means that the caller has left already.
    let _ = socket.set_nodelay(true);
    let Ok(Ok(tls)) = timeout(HANDSHAKE_MAX, acceptor.accept(socket)).await else { return };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let upstream = upstream.clone();
        async move { Ok::<_, Infallible>(upstream.answer(request).await) }
    });
    // How a connection ends is for its caller to judge, who counts what failed.
    if is_http2 {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.max_concurrent_streams(STREAMS_MAX)
            .max_frame_size(FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let _ = http.serve_connection(TokioIo::new(tls), service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades().await;
    }
}
