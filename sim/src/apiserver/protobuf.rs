//! Protobuf bodies, which typed clients of client-go 1.32 and later send: decoded to JSON by the tables in `messages`.
//!
//! The answer is always JSON, which these clients accept. A kind without a table, and a field that a table does not
//! name and that says something, are refused: what is not understood is never dropped.

mod messages;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::status::Status;
use messages::{Field, Message, Shape};

/// The media type of such bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every Kubernetes protobuf body starts with; a `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";

/// Messages within messages: the deepest table has six levels, a hostile body as many as it likes.
const DEPTH_MAX: usize = 16;

/// The object in a body, with its type.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Status> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| malformed("the magic number"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in fields(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            // Encodings of the content are set by nobody and would change what `raw` means.
            (3 | 4, Wire::Bytes([])) => {}
            _ => return Err(malformed("its envelope")),
        }
    }
    let message = messages::of(&kind).ok_or_else(|| refused(&format!("a {kind}")))?;
    let mut object = decode_message(message, raw, DEPTH_MAX)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn decode_message(message: &'static Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Status> {
    let depth = depth.checked_sub(1).ok_or_else(|| malformed("the depth"))?;
    let mut object = Map::new();
    for field in fields(bytes) {
        let (number, wire) = field?;
        let Some(field) = message.fields.iter().find(|field| field.number == number) else {
            if wire.is_zero() {
                continue;
            }
            return Err(refused(&format!("field {number} of a {}", message.name)));
        };
        if wire.is_zero() && field.zero_is_absent {
            continue;
        }
        decode_field(&mut object, field, &wire, depth)?;
    }
    Ok(object)
}

fn decode_field(object: &mut Map<String, Value>, field: &'static Field, wire: &Wire<'_>, depth: usize) -> Result<(), Status> {
    let value = match (&field.shape, wire) {
        (Shape::Text, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Shape::Integer, Wire::Number(number)) => number.cast_signed().into(),
        (Shape::Bool, Wire::Number(number)) => (*number != 0).into(),
        (Shape::Message(message), Wire::Bytes(bytes)) => decode_message(message, bytes, depth)?.into(),
        (Shape::Time, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ")?,
        (Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        (Shape::TextMap | Shape::BytesMap, Wire::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            let value = if matches!(field.shape, Shape::TextMap) { utf8(value)? } else { STANDARD.encode(value) };
            let map = object.entry(field.name).or_insert_with(|| Map::new().into());
            map[key] = value.into();
            return Ok(());
        }
        _ => return Err(malformed(field.name)),
    };
    if field.repeated {
        let list = object.entry(field.name).or_insert_with(|| Vec::<Value>::new().into());
        list.as_array_mut().into_iter().for_each(|list| list.push(value.clone()));
    } else {
        object.insert(field.name.to_owned(), value);
    }
    Ok(())
}

/// A `Timestamp` message in the format of `metav1.Time` or `MicroTime`; an empty one is no time at all.
fn time(bytes: &[u8], format: &str) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, Wire::Number(number)) => seconds = number.cast_signed(),
            (2, Wire::Number(number)) => nanos = i32::try_from(number).map_err(|_| malformed("a time"))?,
            _ => return Err(malformed("a time")),
        }
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| malformed("a time"))?;
    Ok(time.strftime(format).to_string().into())
}

/// Key and value of one entry of a map.
fn entry(bytes: &[u8]) -> Result<(String, &[u8]), Status> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for field in fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return Err(malformed("an entry of a map")),
        }
    }
    Ok((key, value))
}

/// A field's content as it is on the wire; Kubernetes uses no other wire types.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    fn is_zero(&self) -> bool {
        match self {
            Self::Number(number) => *number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// Field numbers and contents, in order; ends after the first error.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), Status>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let mut now = rest.take().filter(|now| !now.is_empty())?;
        let field = field(&mut now).ok_or_else(|| malformed("the wire format"));
        rest = field.is_ok().then_some(now);
        Some(field)
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(content)
        }
        _ => return None,
    };
    Some((tag >> 3, wire))
}

/// Seven bits a byte, the lowest first; ten bytes at most.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn utf8(bytes: &[u8]) -> Result<String, Status> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a text"))
}

fn malformed(what: &str) -> Status {
    Status::bad_request(format!("unable to decode the protobuf body: {what} is not as it should be"))
}

fn refused(what: &str) -> Status {
    Status::unsupported_media_type(format!("{what} as {MEDIA_TYPE} is not simulated; send application/json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_map_as_kubectl_sends_it_is_read() {
        let metadata = [text(1, "a"), text(2, ""), text(3, "default"), message(8, &[]), number(7, 0)].concat();
        let pair = [text(1, "key"), text(2, "value")].concat();
        let body = body("v1", "ConfigMap", &[message(1, &metadata), message(2, &pair), number(4, 0)].concat());
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "immutable": false,
            "metadata": { "name": "a", "namespace": "default", "creationTimestamp": null },
            "data": { "key": "value" },
        });
        assert_eq!(decode(&body), Ok(object));
    }

    #[test]
    fn times_of_a_lease_have_microseconds() {
        let time = [number(1, 1_000_000_000), number(2, 5_000)].concat();
        let spec = [text(1, ""), number(2, 15), message(4, &time)].concat();
        let object = decode(&body("coordination.k8s.io/v1", "Lease", &message(2, &spec))).expect("a lease");
        let wanted = json!({ "holderIdentity": "", "leaseDurationSeconds": 15, "renewTime": "2001-09-09T01:46:40.000005Z" });
        assert_eq!(object["spec"], wanted);
    }

    #[test]
    fn what_is_not_in_the_tables_is_refused_unless_it_says_nothing() {
        let code = |result: Result<Value, Status>| result.map(|_| ()).map_err(|status| status.code());
        assert_eq!(code(decode(&body("v1", "ConfigMap", &text(99, "new")))), Err(415));
        assert_eq!(code(decode(&body("v1", "ConfigMap", &text(99, "")))), Ok(()));
        assert_eq!(code(decode(&body("batch/v1", "Job", b""))), Err(415));
    }

    #[test]
    fn broken_bodies_are_refused() {
        let good = body("v1", "ConfigMap", &message(1, &text(1, "a")));
        assert_eq!(decode(b"{}").map_err(|status| status.code()), Err(400));
        for length in 4..good.len() {
            let result = decode(&good[..length]);
            assert!(result.is_err() || length < good.len(), "{length}");
        }
        let deep = (0..100).fold(Vec::new(), |inner, _| message(2, &inner));
        assert!(decode(&body("apps/v1", "Deployment", &deep)).is_err());
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [text(1, api_version), text(2, kind)].concat();
        [MAGIC, &message(1, &type_meta), &message(2, raw), &text(3, ""), &text(4, "")].concat()
    }

    fn text(number: u8, text: &str) -> Vec<u8> {
        message(number, text.as_bytes())
    }

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = varint_of(u64::from(number) << 3 | 2);
        out.extend(varint_of(content.len() as u64));
        out.extend_from_slice(content);
        out
    }

    fn number(number: u8, value: u64) -> Vec<u8> {
        [varint_of(u64::from(number) << 3), varint_of(value)].concat()
    }

    fn varint_of(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }
}
