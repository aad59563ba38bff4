//! A collector of traces: takes OTLP as protobuf over HTTP, and keeps the spans.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use prost::Message;

/// A span that was delivered.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The `service.name` of its resource.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The ids, in hexadecimal; the parent's may be empty.
    pub trace: String,
    /// Its own.
    pub id: String,
    /// Its parent's.
    pub parent: String,
    /// Which side of a request it is.
    pub kind: SpanKind,
    /// What is told of it; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether it has failed.
    pub is_error: bool,
}

/// A running collector, for as long as the test's process lives.
#[derive(Clone)]
pub struct Collector {
    addr: SocketAddr,
    spans: Arc<Mutex<Vec<Delivered>>>,
}

impl Collector {
    /// Starts one at a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let collector = Self { addr: listener.local_addr()?, spans: Arc::default() };
        let serving = collector.clone();
        std::thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let serving = serving.clone();
                // It ends with its connection, whatever the reason.
                std::thread::spawn(move || drop(serving.serve(&connection)));
            }
        });
        Ok(collector)
    }

    /// What a program is told of it.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it was sent so far.
    pub fn spans(&self) -> Vec<Delivered> {
        self.kept().clone()
    }

    fn serve(&self, connection: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                ensure!(reader.read_line(&mut line)? > 0, "the connection has ended");
                match line.trim_end().to_ascii_lowercase() {
                    line if line.is_empty() => break,
                    line => head.push(line),
                }
            }
            ensure!(head.first().is_some_and(|line| line == "post /v1/traces http/1.1"), "{head:?}");
            ensure!(head.iter().any(|line| line == "content-type: application/x-protobuf"), "{head:?}");
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.context("no length")?];
            reader.read_exact(&mut body)?;
            self.keep(ExportTraceServiceRequest::decode(&body[..])?);
            let mut connection = connection;
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
        }
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut kept = self.kept();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.map(|resource| told(resource.attributes)).unwrap_or_default();
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                kept.push(Delivered {
                    service: service.clone(),
                    kind: span.kind(),
                    is_error: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: told(span.attributes),
                });
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Delivered>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: any_value::Value| {
        if let any_value::Value::StringValue(text) = value {
            return text;
        }
        if let any_value::Value::IntValue(number) = value { number.to_string() } else { format!("{value:?}") }
    };
    let value = |attribute: &KeyValue| attribute.value.clone().and_then(|value| value.value).map(text).unwrap_or_default();
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
