//! Hostile HTTP as data: what is said, what of it may arrive, and what the other side is told.
//!
//! `testdata/requests.txt` and `testdata/answers.txt` are the tables; they are played in the simulated world and against the
//! programs as they ship, over whatever carries bytes. [`FarEnd`] stands for the API server: it reads more strictly than any
//! server does, so that what two servers could read in two ways is found.

mod far_end;
mod frames;
mod judgement;
mod strict;
mod table;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use far_end::{Arrived, FarEnd, NEXT};
pub use frames::{Outcome, outcome};
pub use strict::{Answer, Request, answer, request};
pub use table::{AnswerCase, Case, Protocol, Then, answers, requests};

/// What a connection gave.
#[derive(Debug, Default)]
pub struct Reply {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// It ended, one way or another.
    pub has_ended: bool,
}

/// Says `bytes` on `io` and listens until it ends, `is_enough`, or nothing has come for `quiet`.
pub async fn say<T>(io: &mut T, bytes: &[u8], quiet: Duration, is_enough: impl Fn(&[u8]) -> bool) -> Reply
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut reply = Reply::default();
    let (mut reader, mut writer) = tokio::io::split(io);
    // Who hangs up while it is spoken to has said enough.
    let speak = async {
        let _ = writer.write_all(bytes).await;
        let _ = writer.flush().await;
    };
    let listen = async {
        while !is_enough(&reply.bytes) {
            match tokio::time::timeout(quiet, reader.read_buf(&mut reply.bytes)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => {
                    reply.has_ended = true;
                    return;
                }
                Err(_) => return,
            }
        }
    };
    tokio::join!(speak, listen);
    reply
}
