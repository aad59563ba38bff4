//! The collector of traces: its URL, and requests to it over connections of the host (OTLP 1.x, section "OTLP/HTTP").

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use crate::tls::{Alpn, ClientTls};
use crate::{Host, HttpUrl};

/// What is appended to the URL that is given (OpenTelemetry "OTLP Exporter Configuration", endpoint URLs).
const TRACES_PATH: &str = "/v1/traces";

/// How long one delivery may take, dial and answer included: the default of OTLP exporters.
const DELIVERY_MAX: Duration = Duration::from_secs(10);

/// The longest answer that is read: it says how many spans were refused, and why, in a sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why spans were not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("failed to reach it: {0}")]
    Unreachable(#[source] io::Error),
    #[error("no answer within {} s", DELIVERY_MAX.as_secs())]
    Silent,
    #[error("it broke off: {0}")]
    Broken(#[source] hyper::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("a request to it cannot be made: {0}")]
    Request(#[source] http::Error),
}

/// Takes spans; one connection is kept for all of them.
pub(super) struct Collector {
    host: Host,
    url: HttpUrl,
    tls: Option<ClientTls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Collector {
    /// Below `url`.
    pub(super) fn new(host: Host, url: HttpUrl, tls: Option<ClientTls>) -> Self {
        let url = url.join(TRACES_PATH);
        Self { host, url, tls, connection: None }
    }

    pub(super) fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Delivers an encoded `ExportTraceServiceRequest`; gives how many of its spans were refused.
    pub(super) async fn deliver(&mut self, body: Vec<u8>) -> Result<u64, DeliveryError> {
        match tokio::time::timeout(DELIVERY_MAX, self.try_deliver(body)).await {
            Ok(delivered) => delivered,
            Err(_) => Err(DeliveryError::Silent),
        }
    }

    async fn try_deliver(&mut self, body: Vec<u8>) -> Result<u64, DeliveryError> {
        // Taken out: one whose delivery is given up is not used again.
        let kept = match self.connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.dial().await?,
        };
        let request = Request::post(&self.url.path)
            .header(HOST, format!("{}:{}", self.url.host, self.url.port))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))
            .map_err(DeliveryError::Request)?;
        let response = connection.send_request(request).await.map_err(DeliveryError::Broken)?;
        let status = response.status();
        // Longer or broken off: it says nothing, and its connection is not kept.
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes());
        if let Ok(answer) = &answer {
            self.connection = Some(connection);
            if status.is_success() {
                let told = ExportTraceServiceResponse::decode(answer.clone()).ok().and_then(|answer| answer.partial_success);
                return Ok(told.map_or(0, |told| u64::try_from(told.rejected_spans).unwrap_or_default()));
            }
        }
        if status.is_success() { Ok(0) } else { Err(DeliveryError::Refused(status)) }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
        let mut connection = self.host.dial(&self.url.host, self.url.port).await.map_err(DeliveryError::Unreachable)?;
        if let Some(tls) = &self.tls {
            let connected = tls.connect(connection, &self.url.host, Alpn::Http1).await;
            connection = connected.map_err(DeliveryError::Unreachable)?.0;
        }
        let (sender, exchange) = http1::handshake(TokioIo::new(connection)).await.map_err(DeliveryError::Broken)?;
        self.host.spawn("traces connection", async move {
            // Its error arrives with the answer.
            let _ = exchange.await;
        });
        Ok(sender)
    }
}
