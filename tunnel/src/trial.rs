//! Trials: a session that carries no request, by which somebody at the agent's end finds out what the way does to one.
//!
//! Who asks for an upgrade with [`HEADER`] gets a session that nobody else knows of. The server opens one stream in it and
//! does errands there, each a byte and its answer: [`serve`] is its end, [`Trial`] the other.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// The header with which an upgrade asks for a trial, and a hub says that it knows them.
pub const HEADER: &str = "postern-trial";

/// Its value.
pub const OFFER: &str = "1";

/// What is carried each way to see how fast the way is: enough to leave TCP's slow start on most links, and bearable where a
/// megabyte costs money.
pub const BULK_BYTES: usize = 1 << 20;

/// The longest silence that can be tried: no middlebox that people keep is more patient and then not for ever.
pub const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How long a whole trial may take: the longest silence and a slow megabyte each way.
pub const TIME_MAX: Duration = Duration::from_secs(3600 + 300);

/// Errands of one trial: a few round trips, with room.
const ERRANDS_MAX: usize = 32;

/// Megabytes of one trial: one each way, and again.
const BULKS_MAX: usize = 4;

/// What the server is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// The byte itself, back.
    Echo = b'e' as isize,
    /// [`BULK_BYTES`] of the pattern.
    Send = b's' as isize,
    /// The byte itself, back, once [`BULK_BYTES`] of the pattern that follow it have come.
    Take = b't' as isize,
}

impl Errand {
    fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Send, Self::Take].into_iter().find(|errand| errand.byte() == byte)
    }

    fn byte(self) -> u8 {
        self as u8
    }
}

/// Does the errands of a trial, until there are no more or too many.
///
/// # Errors
/// The stream's, or that the peer does not keep to this protocol.
pub async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut n_bulks = 0;
    for _ in 0..ERRANDS_MAX {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            break;
        }
        let errand = Errand::of(byte[0]).ok_or_else(|| broken("an errand that nobody knows"))?;
        n_bulks += usize::from(errand != Errand::Echo);
        if n_bulks > BULKS_MAX {
            return Err(broken("more bytes than a trial has"));
        }
        match errand {
            Errand::Echo => stream.write_all(&byte).await?,
            Errand::Send => send(&mut stream).await?,
            Errand::Take => {
                take(&mut stream).await?;
                stream.write_all(&byte).await?;
            }
        }
        stream.flush().await?;
    }
    stream.shutdown().await
}

/// The end that asks.
pub struct Trial<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Trial<S> {
    /// Over the stream that the server has opened.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }

    /// A byte there and back; how long it took.
    ///
    /// # Errors
    /// The stream's end.
    pub async fn echo(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.ask(Errand::Echo).await?;
        self.answered(Errand::Echo).await?;
        Ok(began.elapsed())
    }

    /// How long [`BULK_BYTES`] take to come.
    ///
    /// # Errors
    /// The stream's end, or other bytes than were sent.
    pub async fn receive_bulk(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.ask(Errand::Send).await?;
        take(&mut self.0).await?;
        Ok(began.elapsed())
    }

    /// How long [`BULK_BYTES`] take to go, up to the word that they have come.
    ///
    /// # Errors
    /// The stream's end.
    pub async fn send_bulk(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.ask(Errand::Take).await?;
        send(&mut self.0).await?;
        self.answered(Errand::Take).await?;
        Ok(began.elapsed())
    }

    async fn ask(&mut self, errand: Errand) -> io::Result<()> {
        self.0.write_all(&[errand.byte()]).await?;
        self.0.flush().await
    }

    async fn answered(&mut self, errand: Errand) -> io::Result<()> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).await?;
        if byte[0] == errand.byte() { Ok(()) } else { Err(broken("another answer than was asked for")) }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    for n in 0..BULK_BYTES / BLOCK_BYTES {
        stream.write_all(&block(n)).await?;
    }
    stream.flush().await
}

async fn take(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    for n in 0..BULK_BYTES / BLOCK_BYTES {
        let mut bytes = [0; BLOCK_BYTES];
        stream.read_exact(&mut bytes).await?;
        if bytes != block(n) {
            return Err(broken("other bytes than were sent"));
        }
    }
    Ok(())
}

/// What is made of the pattern at a time: a divisor of [`BULK_BYTES`].
const BLOCK_BYTES: usize = 4096;

/// The `n`th block of a pattern that no middlebox can compress: a counter through splitmix64's finish.
fn block(n: usize) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
        let mut z = ((n * BLOCK_BYTES + i) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    bytes
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errands_are_done_and_bounded() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let asking = async move {
            let mut trial = Trial::new(near);
            for _ in 0..BULKS_MAX / 2 {
                trial.echo().await?;
                trial.receive_bulk().await?;
                trial.send_bulk().await?;
            }
            trial.echo().await?;
            Ok::<_, io::Error>(trial.receive_bulk().await)
        };
        let (served, asked) = tokio::join!(serve(far), asking);
        assert_eq!(served.expect_err("one too many").to_string(), "more bytes than a trial has");
        assert!(asked.expect("all but the last").is_err());
    }

    #[tokio::test]
    async fn a_trial_of_nothing_but_round_trips_ends_too() {
        let (near, far) = tokio::io::duplex(64);
        let asking = async move {
            let mut trial = Trial::new(near);
            let mut n = 0;
            while trial.echo().await.is_ok() {
                n += 1;
            }
            n
        };
        let (served, n) = tokio::join!(serve(far), asking);
        assert!(served.is_ok());
        assert_eq!(n, ERRANDS_MAX);
    }

    #[tokio::test]
    async fn bytes_that_were_changed_on_the_way_are_found() {
        let (near, mut far) = tokio::io::duplex(2 * BULK_BYTES);
        let mut bytes: Vec<u8> = (0..BULK_BYTES / BLOCK_BYTES).flat_map(block).collect();
        bytes[BULK_BYTES - 1] ^= 1;
        far.write_all(&bytes).await.expect("room");
        assert_eq!(Trial::new(near).receive_bulk().await.expect_err("changed").to_string(), "other bytes than were sent");
    }

    #[tokio::test]
    async fn nonsense_ends_a_trial() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"x").await.expect("room");
        assert!(serve(far).await.is_err());
    }
}
