//! The far end: stands for the API server, keeps what it hears and answers in the same words each time.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::strict::{self, Request};
use super::table::answers;

/// The path of the harmless request that follows on each connection.
pub const NEXT: &str = "/next";

/// What came in at the far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// All of a request. What follows an upgrade is its body.
    Whole(Request),
    /// The head of a request whose body broke off, visibly.
    Part(Request),
    /// Something else: why it is no request.
    Broken(String),
}

/// What a far end says to a request; none is an answer that repeats the request line.
type Words = dyn Fn(&Request) -> Option<Vec<u8>> + Send + Sync;

/// A far end. Clones share what they heard.
#[derive(Clone)]
pub struct FarEnd {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    words: Arc<Words>,
}

impl FarEnd {
    /// One that says `words` where they are not none.
    pub fn new(words: impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { arrived: Arc::default(), words: Arc::new(words) }
    }

    /// One that answers `/answer/N` in the words of case N of `testdata/answers.txt`.
    ///
    /// # Panics
    /// If the table is broken.
    pub fn lying() -> Self {
        let words: Vec<_> = answers().expect("a good table").into_iter().map(|case| case.said).collect();
        Self::new(move |request| {
            let number = request.target.strip_prefix("/answer/")?;
            words.get(number.parse::<usize>().ok()?).cloned()
        })
    }

    /// What it heard since it was asked last.
    pub fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.arrived())
    }

    /// Keeps a request that came some other way than in bytes.
    pub fn note(&self, arrived: Arrived) {
        self.arrived().push(arrived);
    }

    /// Serves whoever connects to the address that this gives, for as long as its runtime lives.
    ///
    /// # Errors
    /// When there is no address to listen at.
    pub async fn listen(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let served = self.clone();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { served.serve(io, Vec::new()).await });
            }
        });
        Ok(addr)
    }

    /// Serves one connection until it ends, from the bytes in `heard` on.
    pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(&self, mut io: T, mut heard: Vec<u8>) {
        loop {
            let mut has_continued = false;
            let request = loop {
                match strict::request(&heard) {
                    Ok(Some((request, len))) => {
                        heard.drain(..len);
                        break request;
                    }
                    Ok(None) => {}
                    Err(why) => return self.note(Arrived::Broken(format!("{why:#}"))),
                }
                let head = strict::request_head(&heard).ok().flatten();
                let waits = head.as_ref().is_some_and(|(head, _)| field(head, "expect").is_some());
                if waits && !std::mem::replace(&mut has_continued, true) {
                    // An error is the connection's end, which is seen below.
                    let _ = io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                if !io.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {
                    return match head {
                        Some((head, _)) => self.note(Arrived::Part(head)),
                        None if heard.is_empty() => {}
                        None => self.note(Arrived::Broken(format!("half a head: {}", String::from_utf8_lossy(&heard)))),
                    };
                }
            };
            if let Some(protocol) = field(&request, "upgrade") {
                let head = [b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ", &protocol[..], b"\r\n\r\n"];
                let head = head.concat();
                return self.switched(io, request, heard, &head).await;
            }
            let words = (self.words)(&request);
            let is_last = words.is_some();
            let words = words.unwrap_or_else(|| usual(&request));
            self.note(Arrived::Whole(request));
            let said = io.write_all(&words).await;
            if said.is_err() || is_last {
                // What is said in odd words may leave a connection that no request can follow on.
                let _ = io.shutdown().await;
                return;
            }
        }
    }

    async fn switched<T: AsyncRead + AsyncWrite + Unpin>(&self, mut io: T, mut request: Request, heard: Vec<u8>, head: &[u8]) {
        request.body.extend(heard);
        let index = {
            let mut arrived = self.arrived();
            arrived.push(Arrived::Whole(request.clone()));
            arrived.len() - 1
        };
        let _ = io.write_all(head).await;
        while io.read_buf(&mut request.body).await.is_ok_and(|n| n > 0) {
            if let Some(Arrived::Whole(kept)) = self.arrived().get_mut(index) {
                kept.body.clone_from(&request.body);
            }
        }
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FarEnd {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl Arrived {
    /// The request without what server and agent put there, after a look at that: the agent's own `token` and nobody else's,
    /// the name of its target `host`, one `Audit-ID`. None of what may never arrive is passed over.
    pub fn judged(self, token: &str, host: &str) -> Self {
        let judge = |mut request: Request| {
            let all =
                |name: &str| -> Vec<_> { values(&request, name).map(|v| String::from_utf8_lossy(v).into_owned()).collect() };
            let (tokens, hosts, n_ids) = (all("authorization"), all("host"), all("audit-id").len());
            if tokens != [format!("Bearer {token}")] || hosts != [host] || n_ids != 1 {
                return Err(format!("{} {}: authorized {tokens:?} to {hosts:?}, {n_ids} ids", request.method, request.target));
            }
            request.fields.retain(|(name, _)| !["authorization", "host", "audit-id"].contains(&name.as_str()));
            Ok(request)
        };
        match self {
            Self::Whole(request) => judge(request).map_or_else(Self::Broken, Self::Whole),
            Self::Part(request) => judge(request).map_or_else(Self::Broken, Self::Part),
            Self::Broken(why) => Self::Broken(why),
        }
    }
}

fn usual(request: &Request) -> Vec<u8> {
    let body = format!("{} {}\n", request.method, request.target);
    let shown = if request.method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{shown}", body.len()).into_bytes()
}

fn field<'a>(request: &'a Request, name: &str) -> Option<&'a Vec<u8>> {
    values(request, name).next()
}

fn values<'a>(request: &'a Request, name: &str) -> impl Iterator<Item = &'a Vec<u8>> {
    request.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value)
}
