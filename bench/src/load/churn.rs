//! Callers who come and go in every way there is: what a process must not grow by, however long it lasts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Dialer, HEAD_MAX, read_whole};
use super::payload::{Payload, Progress};
use super::tally::Tally;
use crate::task::{Outcome, Way};

const SMALL: &str = "/api/v1/namespaces/bench/configmaps/small?bytes=2048";

/// A LIST that is larger than every window, so that whoever leaves it leaves something behind.
const LARGE: &str = "/api/v1/pods?bytes=67108864";

/// How much of it is read before its reader leaves.
const TASTE_BYTES: u64 = 256 << 10;

const WATCH: &str = "/api/v1/configmaps?watch=true&from=0&every=20&count=1000000";

/// How many pieces of a watch are read before its reader leaves.
const WATCH_PIECES: usize = 50;

const EXEC: &str = "/api/v1/namespaces/bench/pods/shell/exec";

const ECHOES: usize = 5;

const POST: &str = "/api/v1/namespaces/bench/configmaps";

const UPLOAD_BYTES: u64 = 1 << 20;

/// When every other upload is given up: about when half of it is there.
const UPLOAD_PATIENCE: Duration = Duration::from_millis(4);

/// How long one who does not read stays.
const STALL: Duration = Duration::from_secs(2);

/// Requests at once on a connection of HTTP/2, of which every other one is left as soon as its answer begins.
const AT_ONCE: usize = 8;

/// Of each kind; together they keep a machine of two cores at work and leave it some of its time.
const CALLERS: usize = 2;

/// Between two visits of a caller: some ten visits a second of each kind that is done at once.
const PAUSE: Duration = Duration::from_millis(150);

/// What callers do in one visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Visit {
    /// A new connection, a few requests, and off.
    Connect,
    /// Many requests at once on HTTP/2, every other one cancelled.
    CancelStreams,
    /// Off in the middle of a large answer.
    Leave,
    /// The same, and the connection ends with a reset.
    Reset,
    /// Reads nothing of a large answer, and then off.
    Stall,
    Watch,
    Exec,
    /// Every other one is given up halfway.
    Upload,
}

const VISITS: [(Visit, &str); 8] = [
    (Visit::Connect, "connects"),
    (Visit::CancelStreams, "streams_cancelled"),
    (Visit::Leave, "answers_left"),
    (Visit::Reset, "resets"),
    (Visit::Stall, "stalls"),
    (Visit::Watch, "watches"),
    (Visit::Exec, "execs"),
    (Visit::Upload, "uploads"),
];

/// What came of one kind of visit.
#[derive(Debug, Default)]
struct Book {
    well: AtomicU64,
    badly: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Visits that go badly are told and are no failure, since agents come and go, too; a kind of which none went well is one.
pub(super) async fn churn(way: &Way, length: Duration) -> Result<Outcome> {
    let callers = Arc::new(Callers::new(way)?);
    let began = Instant::now();
    let books: Vec<_> = VISITS.iter().map(|(visit, name)| (*visit, *name, Arc::new(Book::default()))).collect();
    let all = books.iter().flat_map(|(visit, _, book)| {
        (0..CALLERS).map(|_| tokio::spawn(Arc::clone(&callers).come_and_go(*visit, Arc::clone(book), began + length)))
    });
    join_all(all).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    let mut tally = Tally::new();
    for (_, name, book) in books {
        let (well, badly) = (book.well.load(Ordering::Relaxed), book.badly.load(Ordering::Relaxed));
        tally.ok += well;
        tally.more.insert(name.to_owned(), well as f64);
        tally.more.insert(format!("{name}_failed"), badly as f64);
        let error = book.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        tally.fail_times(u64::from(well == 0), || format!("{name}: none went well: {}", error.unwrap_or_default()));
    }
    Ok(tally.outcome_of(began.elapsed().as_secs_f64()))
}

struct Callers {
    http1: Dialer,
    http2: Dialer,
}

impl Callers {
    fn new(way: &Way) -> Result<Self> {
        let http2 = Dialer::new(&Way { http2: true, ..way.clone() })?;
        Ok(Self { http1: Dialer::for_upgrades(way)?, http2 })
    }

    async fn come_and_go(self: Arc<Self>, visit: Visit, book: Arc<Book>, end: Instant) {
        for n in 0_u64.. {
            if Instant::now() >= end {
                return;
            }
            let done = timeout(HEAD_MAX, self.visit(visit, n)).await.unwrap_or_else(|_| Err(anyhow!("timed out")));
            match done {
                Ok(()) => book.well.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    *book.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
                    book.badly.fetch_add(1, Ordering::Relaxed)
                }
            };
            sleep(PAUSE).await;
        }
    }

    async fn visit(&self, visit: Visit, n: u64) -> Result<()> {
        match visit {
            Visit::Connect => self.connect().await,
            Visit::CancelStreams => self.cancel_streams().await,
            Visit::Leave => taste(&self.http1).await,
            Visit::Reset => taste(&self.http1.clone().for_resets()).await,
            Visit::Stall => self.stall(n).await,
            Visit::Watch => self.watch(n).await,
            Visit::Exec => self.exec().await,
            Visit::Upload => self.upload(n).await,
        }
    }

    async fn connect(&self) -> Result<()> {
        let (mut sender, ask) = (self.http1.dial().await?, self.http1.get(SMALL, "")?);
        for _ in 0..3 {
            read_whole(sender.fetch(&ask).await?.into_body()).await?;
            sender.is_ready().await;
        }
        Ok(())
    }

    async fn cancel_streams(&self) -> Result<()> {
        let sender = self.http2.dial().await?;
        let (small, large) = (self.http2.get(SMALL, "")?, self.http2.get(LARGE, "")?);
        let each = (0..AT_ONCE).map(|n| {
            let (sender, ask) = (sender.share(), if n % 2 == 0 { &small } else { &large });
            async move {
                let body = sender.context("HTTP/2 shares a connection")?.fetch(ask).await?.into_body();
                if n % 2 == 0 {
                    read_whole(body).await?;
                }
                anyhow::Ok(())
            }
        });
        try_join_all(each).await.map(drop)
    }

    async fn stall(&self, n: u64) -> Result<()> {
        let dialer = if n.is_multiple_of(2) { &self.http1 } else { &self.http2 }.clone().for_stalled();
        let mut sender = dialer.dial().await?;
        let _unread = sender.fetch(&dialer.get(LARGE, "")?).await?;
        sleep(STALL).await;
        Ok(())
    }

    async fn watch(&self, n: u64) -> Result<()> {
        let dialer = if n.is_multiple_of(2) { &self.http1 } else { &self.http2 };
        let mut sender = dialer.dial().await?;
        let mut body = sender.fetch(&dialer.get(WATCH, "")?).await?.into_body();
        for _ in 0..WATCH_PIECES {
            piece(&mut body).await?;
        }
        Ok(())
    }

    async fn exec(&self) -> Result<()> {
        let mut io = self.http1.dial().await?.switch(&self.http1.upgrade(EXEC)?).await?;
        let mut back = [0; 64];
        for n in 0..ECHOES {
            let said = [n as u8; 64];
            io.write_all(&said).await?;
            io.read_exact(&mut back).await?;
            ensure!(back == said, "something else came back than was sent");
        }
        Ok(())
    }

    async fn upload(&self, n: u64) -> Result<()> {
        let mut sender = self.http1.dial().await?;
        let ask = self.http1.post(POST)?;
        let payload = Payload::of(UPLOAD_BYTES, Arc::new(Mutex::new(Progress::new(Instant::now()))));
        let whole = async { read_whole(sender.send_for_success(&ask, payload).await?.into_body()).await };
        if n.is_multiple_of(2) {
            return whole.await.map(drop);
        }
        // Given up or just in time: either is how uploads end.
        let _ = timeout(UPLOAD_PATIENCE, whole).await;
        Ok(())
    }
}

/// Reads the beginning of a large answer, and lets go of the connection.
async fn taste(dialer: &Dialer) -> Result<()> {
    let mut sender = dialer.dial().await?;
    let mut body = sender.fetch(&dialer.get(LARGE, "")?).await?.into_body();
    let mut bytes = 0;
    while bytes < TASTE_BYTES {
        bytes += piece(&mut body).await?.len() as u64;
    }
    Ok(())
}

async fn piece(body: &mut Incoming) -> Result<Bytes> {
    let frame = body.frame().await.context("the answer ended early")?.context("the answer broke off")?;
    Ok(frame.into_data().unwrap_or_default())
}
