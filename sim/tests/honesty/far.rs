//! The API server under test, the fake or a real one, and a caller that adds nothing of its own.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use bytes::{Bytes, BytesMut};
use e2e::Upstream;
use host::Host;
use host::tls::{Alpn, ClientFiles, ClientTls};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sim::apiserver::{ApiServer, Misbehavior, Options, Tls};
use sim::certs::Authority;

/// The fake's token.
const TOKEN: &str = "honesty";

/// No check waits longer for one thing: a real API server takes 3 s to say that a revision is not there yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// More at once than an API server takes that is started with [`crate::FLAGS`].
const BURST: usize = 10;

/// Between two looks whether a revision is forgotten.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a check says nothing of this API server.
#[derive(Debug)]
pub(crate) struct Skipped(&'static str);

impl Display for Skipped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// An API server under test.
pub(crate) struct Far {
    host: Host,
    addr: SocketAddr,
    token: String,
    tls: ClientTls,
    kind: Kind,
}

enum Kind {
    Fake(ApiServer),
    /// Started here, with [`crate::FLAGS`].
    Ours,
    /// Somebody's.
    Given,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("no JSON: {}", self.text))
    }

    /// Its document, if it has this status.
    pub(crate) fn expect(&self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.text);
        self.json()
    }

    /// Its `Status`, if it is a failure of this code and reason.
    pub(crate) fn refused(&self, code: u16, reason: &str) -> Result<Value> {
        let status = self.expect(code)?;
        let told = (&status["kind"], &status["apiVersion"], &status["status"], &status["code"], &status["reason"]);
        let wanted = (&json!("Status"), &json!("v1"), &json!("Failure"), &json!(code), &json!(reason));
        ensure!(told == wanted, "no {reason}: {status}");
        ensure!(status["metadata"].is_object() && status["message"].is_string(), "{status}");
        Ok(status)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The lines of an answer.
pub(crate) struct Lines {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    rest: BytesMut,
}

impl Lines {
    /// The next line as JSON; none at a clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        let reading = async {
            loop {
                if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    return Ok(Some(serde_json::from_slice(&self.rest.split_to(end + 1))?));
                }
                match self.body.frame().await.transpose()? {
                    Some(frame) => self.rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                    None => return Ok(None),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.context("nothing came")?
    }
}

impl Far {
    /// The fake, on a port of this machine.
    pub(crate) async fn fake(dir: &Path) -> Result<Self> {
        let host = Host::real();
        let authority = Authority::new(host.wall_clock())?;
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, authority.pem().certificate)?;
        let pem = authority.server("kube-apiserver", &["127.0.0.1"])?;
        let tls = Tls::new(pem.certificate.as_bytes(), pem.key.as_bytes())?;
        let server = ApiServer::new(host.clone(), Options { token: Some(TOKEN.to_owned()), ..Options::default() });
        let listener = host.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let addr = listener.local_addr();
        let serving = server.clone();
        host.spawn("fake", async move { serving.listen_and_serve(listener, Some(tls)).await });
        Self::new(host, addr, TOKEN.to_owned(), &ca, Kind::Fake(server))
    }

    pub(crate) fn real(upstream: &Upstream, is_ours: bool) -> Result<Self> {
        let addr = upstream.target.parse().context("an API server without an address")?;
        let token = std::fs::read_to_string(&upstream.token)?;
        Self::new(Host::real(), addr, token, &upstream.ca, if is_ours { Kind::Ours } else { Kind::Given })
    }

    fn new(host: Host, addr: SocketAddr, token: String, ca: &Path, kind: Kind) -> Result<Self> {
        let files = ClientFiles { ca: ca.to_str().map(str::to_owned), ..ClientFiles::default() };
        let tls = ClientTls::new(&host, "far", files)?;
        Ok(Self { host, addr, token, tls, kind })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply> {
        self.ask("GET", path, &[], "").await
    }

    /// With a body of JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Reply> {
        self.ask(method, path, &[(CONTENT_TYPE.as_str(), "application/json")], &body.to_string()).await
    }

    /// One request on a connection of its own; a field `authorization` takes the place of the token.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Reply> {
        let asking = async {
            let answer = self.open(method, path, headers, body).await?;
            whole(answer).await
        };
        tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("{method} {path} got no answer"))?
    }

    pub(crate) async fn lines(&self, path: &str) -> Result<Lines> {
        let answer = self.open("GET", path, &[], "").await?;
        if answer.status() != StatusCode::OK {
            let reply = whole(answer).await?;
            anyhow::bail!("{path} got {}: {}", reply.status, reply.text);
        }
        let (head, body) = answer.into_parts();
        Ok(Lines { headers: head.headers, body, rest: BytesMut::new() })
    }

    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Response<Incoming>> {
        let connection = self.host.connect(self.addr).await?;
        let (connection, _) = self.tls.connect(connection, &self.addr.ip().to_string(), Alpn::Http1).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
        self.host.spawn("caller", async move { drop(connection.await) });
        let mut request = self.request(method, path, headers, body)?;
        request.headers_mut().insert(HOST, self.addr.to_string().parse()?);
        Ok(sender.send_request(request).await?)
    }

    /// An HTTP/2 connection, if ALPN chooses it.
    pub(crate) async fn http2(&self) -> Result<http2::SendRequest<Full<Bytes>>> {
        let connection = self.host.connect(self.addr).await?;
        let (connection, shown) = self.tls.connect(connection, &self.addr.ip().to_string(), Alpn::Http).await?;
        ensure!(shown.is_http2, "ALPN did not choose HTTP/2");
        let (sender, connection) = http2::handshake(self.host.tasks().clone(), TokioIo::new(connection)).await?;
        self.host.spawn("caller", async move { drop(connection.await) });
        Ok(sender)
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == AUTHORIZATION.as_str()) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.body(Full::from(body.to_owned()))?)
    }

    /// Over HTTP/2, which wants the authority in the URI.
    pub(crate) fn request2(&self, path: &str) -> Result<Request<Full<Bytes>>> {
        self.request("GET", &format!("https://{}{path}", self.addr), &[], "")
    }

    /// Ends a check of what a real one does not do in a test's time, in words.
    pub(crate) fn only_of_the_fake(&self, why: &'static str) -> Result<()> {
        match &self.kind {
            Kind::Fake(_) => Ok(()),
            Kind::Ours | Kind::Given => Err(Error::msg(Skipped(why))),
        }
    }

    /// Makes it forget its history up to now.
    pub(crate) async fn compact(&self) -> Result<()> {
        match &self.kind {
            Kind::Fake(server) => {
                server.compact();
                Ok(())
            }
            Kind::Given => Err(Error::msg(Skipped("an API server that is not ours compacts its etcd when it likes"))),
            Kind::Ours => tokio::time::timeout(PATIENCE, self.forgotten()).await.context("nothing was compacted")?,
        }
    }

    /// Waits until the revision of this moment is refused.
    async fn forgotten(&self) -> Result<()> {
        let list = self.get("/api/v1/configmaps?limit=1").await?.expect(200)?;
        let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
        let old = format!("/api/v1/configmaps?limit=1&resourceVersion={version}&resourceVersionMatch=Exact");
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            // The newest revision is never compacted, so there must be newer ones.
            crate::checks::make_any(self).await?;
            if self.get(&old).await?.status == StatusCode::GONE {
                return Ok(());
            }
        }
    }

    /// An answer of 429.
    pub(crate) async fn throttled(&self) -> Result<Reply> {
        match &self.kind {
            Kind::Fake(server) => {
                let throttled = server.misbehave(Misbehavior::Throttled { retry_after: 1 });
                let reply = self.get("/api/v1/namespaces").await;
                server.behave(throttled);
                reply
            }
            Kind::Given => {
                Err(Error::msg(Skipped("an API server that is not ours takes more at once than a test may ask of it")))
            }
            Kind::Ours => {
                // Each waits for 3 s for a version that does not come, and has one of the places meanwhile.
                let slow = (0..BURST).map(|_| self.get("/api/v1/namespaces?resourceVersion=999999999"));
                let replies = futures_util::future::try_join_all(slow).await?;
                let throttled = replies.into_iter().find(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS);
                throttled.context("all were taken")
            }
        }
    }

    /// Lets a GOAWAY come now and then.
    pub(crate) fn go_away(&self) -> Result<()> {
        match &self.kind {
            Kind::Fake(server) => {
                server.misbehave(Misbehavior::GoesAway { one_in: 50 });
                Ok(())
            }
            Kind::Ours => Ok(()),
            Kind::Given => Err(Error::msg(Skipped("an API server that is not ours sends no GOAWAY unless it is told to"))),
        }
    }
}

pub(crate) async fn whole(answer: Response<Incoming>) -> Result<Reply> {
    let (head, body) = answer.into_parts();
    let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    Ok(Reply { status: head.status, headers: head.headers, text })
}
