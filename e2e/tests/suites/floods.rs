//! Floods: connections that mean nothing, beside a watch that does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Pair, Scene, Suite, post};
use serde_json::json;

/// Connections that send a head for ever, at each listener.
const SLOW_HEADS: usize = 200;

/// How often each of them sends a byte.
const TRICKLE: Duration = Duration::from_millis(250);

/// Handshakes that are begun at once, each a millisecond or two of the server's arithmetic, and left.
const HANDSHAKES: usize = 20;

/// Between two such bursts: a flood that takes all of a small machine would tell of the machine and not of the server.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(20);

/// Rounds of so many events alone and as many beside the flood: what else the machine does falls on both.
const ROUNDS: usize = 6;
const EVENTS: usize = 20;

/// Between two events, so that each finds the server at rest.
const EVENT_PAUSE: Duration = Duration::from_millis(5);

/// Below this a latency is the machine's scheduling.
const FLOOR: Duration = Duration::from_millis(4);

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    suite.step("events beside floods come as soon as alone", || {
        let pair = scene.pair()?;
        let (public, internal) = (pair.public(), pair.internal());
        let mut watch = Watch::open(internal)?;
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let flood = Flood::default();
        thread::scope(|scope| {
            let floods = [
                scope.spawn(|| slow_heads(internal, b"GET /tunnel/edge-1/version HTTP/1.1\r\nx: ", &flood)),
                scope.spawn(|| slow_heads(public, &client_hello()[..60], &flood)),
                scope.spawn(|| handshakes(public, &flood)),
            ];
            let measured = (0..ROUNDS).try_for_each(|round| -> Result<()> {
                flood.is_on.store(false, Ordering::Relaxed);
                watch.time(&format!("alone-{round}"), &mut alone)?;
                flood.is_on.store(true, Ordering::Relaxed);
                watch.time(&format!("beside-{round}"), &mut beside)
            });
            flood.is_over.store(true, Ordering::Relaxed);
            floods.into_iter().try_for_each(|flood| flood.join().unwrap_or_else(|_| anyhow::bail!("a flood panicked")))?;
            measured
        })?;
        let n_handshakes = flood.n_handshakes.load(Ordering::Relaxed);
        let (alone, beside) = (median(alone), median(beside));
        eprintln!("events took {alone:?} alone and {beside:?} beside {n_handshakes} handshakes");
        ensure!(n_handshakes >= ROUNDS * HANDSHAKES, "{n_handshakes} handshakes are no flood");
        ensure!(beside <= 2 * alone.max(FLOOR), "{alone:?} alone, {beside:?} beside {n_handshakes} handshakes");
        Ok(())
    });
}

/// What the threads of a flood share.
#[derive(Default)]
struct Flood {
    is_on: AtomicBool,
    is_over: AtomicBool,
    n_handshakes: AtomicUsize,
}

impl Flood {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }
}

/// Begins many requests and goes on with each of them, a byte at a time.
fn slow_heads(addr: SocketAddr, begin: &[u8], flood: &Flood) -> Result<()> {
    let mut heads: Vec<TcpStream> = Vec::new();
    while !flood.is_over() {
        if flood.is_on() {
            while heads.len() < SLOW_HEADS {
                let mut head = TcpStream::connect(addr).context("the server takes no more connections")?;
                head.write_all(begin)?;
                heads.push(head);
            }
            // Whom the server has cut off is replaced.
            heads.retain_mut(|head| head.write_all(b"x").is_ok());
        } else {
            heads.clear();
        }
        pace(TRICKLE);
    }
    Ok(())
}

/// Begins handshakes, lets the server do its part of each, and leaves.
fn handshakes(addr: SocketAddr, flood: &Flood) -> Result<()> {
    let hello = client_hello();
    while !flood.is_over() {
        if flood.is_on() {
            let mut burst = (0..HANDSHAKES).map(|_| TcpStream::connect(addr)).collect::<Result<Vec<_>, _>>()?;
            for connection in &mut burst {
                connection.set_read_timeout(Some(Duration::from_secs(10)))?;
                connection.write_all(&hello)?;
            }
            for connection in &mut burst {
                let mut record = [0; 6];
                connection.read_exact(&mut record).context("no answer to a handshake")?;
                ensure!(record[0] == 22 && record[5] == 2, "no ServerHello: {record:?}");
                flood.n_handshakes.fetch_add(1, Ordering::Relaxed);
            }
        }
        pace(HANDSHAKE_PAUSE);
    }
    Ok(())
}

/// A ClientHello of TLS 1.3 (RFC 8446 section 4.1.2), good enough for the server to do all of its arithmetic.
fn client_hello() -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &two(body)].concat();
    let extensions = [
        // Versions: 1.3. Groups: X25519. Signatures: ECDSA P-256, RSA-PSS, Ed25519. A key share of X25519: any 32 bytes are one.
        extension(43, &[2, 3, 4]),
        extension(10, &two(&[0, 0x1d])),
        extension(13, &two(&[4, 3, 8, 4, 8, 7])),
        extension(51, &two(&[&[0, 0x1d][..], &two(&[9; 32])].concat())),
    ]
    .concat();
    let ciphers = two(&[0x13, 1, 0x13, 2, 0x13, 3]);
    let hello = [&[3, 3][..], &[7; 32], &[0], &ciphers, &[1, 0], &two(&extensions)].concat();
    let message = [&[1, 0][..], &two(&hello)].concat();
    [&[22, 3, 1][..], &two(&message)].concat()
}

/// `body` behind its length in two bytes.
fn two(body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], body].concat()
}

/// A watch of config maps through the tunnel.
struct Watch {
    internal: SocketAddr,
    lines: BufReader<TcpStream>,
}

impl Watch {
    fn open(internal: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(internal)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let path = Pair::tunnel_path(CONFIG_MAPS);
        write!(stream, "GET {path}?watch=true&resourceVersion=0 HTTP/1.1\r\nHost: {internal}\r\n\r\n")?;
        let mut watch = Self { internal, lines: BufReader::new(stream) };
        watch.wait_for("\r\n")?;
        Ok(watch)
    }

    /// Makes objects one after the other, and times each from the request to its event.
    fn time(&mut self, prefix: &str, latencies: &mut Vec<Duration>) -> Result<()> {
        for n in 0..EVENTS {
            let name = format!("{prefix}-{n}-end");
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
            pace(EVENT_PAUSE);
            let internal = self.internal;
            let began = Instant::now();
            let asking = thread::spawn(move || post(internal, &Pair::tunnel_path(CONFIG_MAPS), object.as_bytes()));
            self.wait_for(&name)?;
            latencies.push(began.elapsed());
            let answer = asking.join().unwrap_or_else(|_| anyhow::bail!("the caller panicked"))?;
            ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
        }
        Ok(())
    }

    fn wait_for(&mut self, needle: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.lines.read_line(&mut line).context("the watch is silent")? > 0, "the watch ended");
            if line.contains(needle) {
                return Ok(());
            }
        }
    }
}

/// Time between two pieces of load; nothing is waited for.
fn pace(pause: Duration) {
    thread::park_timeout(pause);
}

fn median(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() / 2]
}
