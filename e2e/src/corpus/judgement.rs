//! Judgement: whether what arrived and what was told is what a case says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use tokio::io::{AsyncRead, AsyncWrite};

use super::far_end::{Arrived, NEXT};
use super::frames::{Outcome, outcome};
use super::strict::{Request, answer};
use super::table::{AnswerCase, Case, Protocol, Then};
use super::{Reply, say};

impl Case {
    /// Whether these bytes are all that will come, where the connection's end does not say so.
    pub fn has_all(&self, bytes: &[u8]) -> bool {
        let is_over = |stream: &u32| !matches!(outcome(bytes, *stream), Outcome::Waits | Outcome::Cut(_));
        self.protocol == Protocol::Http2 && [1, 3].iter().all(is_over)
    }

    /// Compares what arrived, and what came back, with what the case says of it and of the harmless request behind it.
    /// `over_http2` is whether it arrived so, which has no codings.
    ///
    /// # Errors
    /// What is otherwise.
    pub fn judge(&self, arrived: Vec<Arrived>, reply: &Reply, over_http2: bool) -> Result<()> {
        let told = match self.protocol {
            Protocol::Http1 => told_http1(self, reply)?,
            Protocol::Http2 => told_http2(self, reply),
        };
        let (mut answers, mut wanted) = (self.answers.clone(), Vec::new());
        answers.retain(|answer| !answer.is_empty());
        let n = self.arrives.len();
        for (request, number) in self.arrives.iter().cloned().zip(1..) {
            wanted.push(if self.breaks_off && number == n { Arrived::Part(request) } else { Arrived::Whole(request) });
        }
        match self.then {
            Then::Served => {
                let next = Request { method: "GET".to_owned(), target: NEXT.to_owned(), fields: Vec::new(), body: Vec::new() };
                wanted.push(Arrived::Whole(next));
                answers.push("200".to_owned());
            }
            Then::Switched => {
                let Some(Arrived::Whole(request)) = wanted.last_mut() else { bail!("nothing was switched") };
                let next = |is_last| [&request.body[..], &self.next(is_last)].concat();
                let bodies = [next(true), next(false)];
                let is_one = matches!(arrived.last(), Some(Arrived::Whole(last)) if bodies.contains(&last.body));
                ensure!(is_one, "after the switch: {arrived:?}");
                if let Some(Arrived::Whole(last)) = arrived.last() {
                    request.body.clone_from(&last.body);
                }
            }
            Then::Closed | Then::Swallowed => {}
        }
        let told = told.join(" ");
        ensure!(told == answers.join(" "), "told {told:?}, not {:?}; arrived {arrived:?}", answers.join(" "));
        let plain = |all: Vec<Arrived>| all.into_iter().map(|one| comparable(one, over_http2)).collect::<Vec<_>>();
        let (mut arrived, mut wanted) = (plain(arrived), plain(wanted));
        if self.protocol == Protocol::Http2 {
            // Its streams have no order.
            arrived.sort();
            wanted.sort();
        }
        if self.breaks_off && !arrived.iter().any(|one| one.starts_with("part")) {
            // It was seen to be broken before the first of it left.
            wanted.retain(|one| !one.starts_with("part"));
        }
        ensure!(arrived == wanted, "arrived\n  {}\nnot\n  {}", arrived.join("\n  "), wanted.join("\n  "));
        Ok(())
    }
}

/// The statuses of all answers on a connection; each must be whole, and nothing between them.
fn told_http1(case: &Case, reply: &Reply) -> Result<Vec<String>> {
    let (mut rest, mut statuses) = (&reply.bytes[..], Vec::new());
    let mut method = if case.said.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    while !rest.is_empty() {
        let (answer, len) = answer(rest, method, reply.has_ended)?.context("half an answer")?;
        ensure!(answer.is_whole, "an answer that is not whole: {answer:?}");
        rest = &rest[len..];
        method = "GET";
        statuses.push(answer.status.to_string());
        if answer.status == 101 {
            break;
        }
    }
    Ok(statuses)
}

/// What became of the streams; of a connection that has ended only the first counts.
fn told_http2(case: &Case, reply: &Reply) -> Vec<String> {
    let mut told: Vec<_> = [1, 3].iter().map(|stream| told_of(reply, *stream)).collect();
    if case.then == Then::Closed && told[0] == told[1] {
        told.pop();
    }
    told
}

fn told_of(reply: &Reply, stream: u32) -> String {
    match outcome(&reply.bytes, stream) {
        Outcome::Waits => "nothing".to_owned(),
        Outcome::Answered(status) => status.to_string(),
        Outcome::Cut(status) => format!("cut {status}"),
        Outcome::Reset => "reset".to_owned(),
        Outcome::GoneAway => "goaway".to_owned(),
    }
}

/// One line. A body that breaks off has come as far as it has.
fn comparable(arrived: Arrived, over_http2: bool) -> String {
    let told = |request: Request| {
        let is_of_http1 = |name: &str| over_http2 && name == "transfer-encoding";
        // Libraries differ in whether they tell of no body.
        let says_nothing = |name: &str, value: &[u8]| name == "content-length" && value == b"0";
        let fields = request.fields.iter().filter(|(name, value)| !is_of_http1(name) && !says_nothing(name, value));
        let fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
        format!("{} {} {fields:?}", request.method, request.target)
    };
    match arrived {
        Arrived::Whole(request) => {
            let body = request.body.escape_ascii().to_string();
            format!("whole {} {body}", told(request))
        }
        Arrived::Part(request) => format!("part {}", told(request)),
        Arrived::Broken(why) => format!("broken {why}"),
    }
}

impl AnswerCase {
    /// Asks for this answer, which a lying far end has under its number, and for a harmless one on the same connection;
    /// compares what is told with what the case says. Nothing comes later than `quiet`.
    ///
    /// # Errors
    /// What is otherwise.
    pub async fn hear<T>(&self, io: &mut T, (number, method, protocol): (usize, &str, Protocol), quiet: Duration) -> Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let case = Case::asking(protocol, method, &format!("/answer/{number}"));
        let (status, body) = if method == "GET" { &self.told[0] } else { &self.told[1] };
        if protocol == Protocol::Http2 {
            let mut reply = say(io, &case.said, quiet, |_| false).await;
            let first = outcome(&reply.bytes, 1);
            reply.bytes.extend(say(io, &case.next(false), quiet, |_| false).await.bytes);
            let next = outcome(&reply.bytes, 3);
            let is_as_told = match first {
                Outcome::Answered(code) => *status == code.to_string() || code == 502 && status == "cut",
                Outcome::Cut(200) | Outcome::Reset => status == "cut",
                Outcome::Waits | Outcome::Cut(_) | Outcome::GoneAway => false,
            };
            ensure!(is_as_told && next == Outcome::Answered(200), "told {first:?}, then {next:?}");
            return Ok(());
        }
        let reply = say(io, &case.said_with_next(), quiet, |_| false).await;
        if status == "cut" && reply.bytes.is_empty() && reply.has_ended {
            return Ok(());
        }
        let (first, len) = answer(&reply.bytes, method, reply.has_ended)?.context("no answer")?;
        // What breaks off early enough is a refusal.
        let code = if first.is_whole { first.status.to_string() } else { "cut".to_owned() };
        ensure!(code == *status || code == "502" && status == "cut", "told {code}: {}", first.body.escape_ascii());
        match code.as_str() {
            "cut" => return Ok(()),
            "502" => ensure!(first.body.starts_with(b"{\"kind\":\"Status\""), "in the words {}", first.body.escape_ascii()),
            _ => ensure!(first.body == *body, "the body is {}", first.body.escape_ascii()),
        }
        let of_the_hop = ["connection", "keep-alive", "proxy-authenticate", "upgrade", "x-hop"];
        let found = first.fields.iter().find(|(name, value)| of_the_hop.contains(&name.as_str()) && value != b"close");
        ensure!(found.is_none(), "a field of the hop: {found:?}");
        let rest = &reply.bytes[len..];
        let (next, len) = answer(rest, "GET", reply.has_ended)?.context("no second answer")?;
        ensure!(next.status == 200 && next.body == format!("GET {NEXT}\n").into_bytes(), "the next was told {next:?}");
        ensure!(rest.len() == len, "stray bytes: {}", rest[len..].escape_ascii());
        Ok(())
    }
}
