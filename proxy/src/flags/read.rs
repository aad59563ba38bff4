//! Readers of a flag's text: durations, sizes, addresses, switches.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use host::{Host, LogLevel};
use secrecy::SecretString;

/// Any text.
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// The path of a file; an empty one is a mistake.
pub fn path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty, a path is needed".to_owned()) } else { Ok(text.to_owned()) }
}

/// The path of a file that can be read at this moment.
pub fn readable(host: &Host) -> impl FnOnce(&str) -> Result<String, String> {
    |text| match host.read_file(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text} cannot be read: {error}")),
    }
}

/// A secret that travels in an HTTP header. Surrounding white space, such as a file's last newline, is dropped.
/// Never echoed.
pub fn secret(text: &str) -> Result<SecretString, String> {
    let text = text.trim();
    if text.is_empty() {
        Err("is empty".to_owned())
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        Err("has characters that cannot stand in a header; visible ASCII is needed".to_owned())
    } else {
        Ok(text.to_owned().into())
    }
}

/// The [`secret`] that is a file's content at this moment.
pub fn secret_file(host: &Host, path: &str) -> Result<SecretString, String> {
    let read = host.read_file(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    secret(&String::from_utf8(read).map_err(|_| format!("{path} is not UTF-8"))?)
}

/// `read`, or `None` for an empty text, which turns the thing off.
pub fn optional<T>(read: impl FnOnce(&str) -> Result<T, String>) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    |text| if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

/// A switch, in any of the spellings that Go's `strconv.ParseBool` takes.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// A whole number.
pub fn count<T: FromStr>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if text.len() > 9 && text.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!("{text:?} is too large")),
        Err(_) => Err(format!("{text:?} is not a whole number")),
    }
}

/// A whole number from 1 up.
pub fn positive(text: &str) -> Result<usize, String> {
    count(text).and_then(|number| if number == 0 { Err("is 0, at least 1 is needed".to_owned()) } else { Ok(number) })
}

/// One of debug, info, warn, error.
pub fn log_level(text: &str) -> Result<LogLevel, String> {
    text.parse()
}

/// A duration as Go writes it: `15s`, `500ms`, `1m30s`, `1.5h`; `0` needs no unit. Up to a year.
pub fn duration(text: &str) -> Result<Duration, String> {
    /// Deadlines are sums of a clock and a duration; a year keeps them far from overflow.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let wrong = || format!("{text:?} is not a duration such as 15s, 500ms or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * unit_seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or_else(|| format!("{text:?} is over a year"))?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A size in bytes: `128MiB`, `64Ki`, `1GiB`, or a plain number of bytes.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size such as 64KiB, 128MiB or 1GiB");
    let unit_start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let unit_bytes = match unit {
        "" | "B" => 1,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: usize = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_bytes).ok_or_else(wrong)
}

/// An address to listen on: `:8443` (all interfaces, IPv4 and IPv6), `127.0.0.1:8443`, `[::1]:8443`, `localhost:8443`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let HostPort { host, port } = split(text)?;
    let ip = match host.as_str() {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host
            .parse()
            .map_err(|_| format!("{text:?} has a name where an IP address is needed; listen on :{port} or an address"))?,
    };
    Ok(SocketAddr::new(ip, port))
}

/// A place to dial: a name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets, also for IPv6.
    pub host: String,
    /// Never 0 in what [`host_port`] returns.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A place to dial: `kubernetes.default.svc:443`, `10.0.0.1:6443`, `[fd00::1]:6443`.
pub fn host_port(text: &str) -> Result<HostPort, String> {
    let place = split(text)?;
    let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let good = if place.host.contains(':') { place.host.parse::<Ipv6Addr>().is_ok() } else { place.host.chars().all(name_char) };
    if place.host.is_empty() || place.port == 0 || !good {
        return Err(format!("{text:?} is not a host and port such as kubernetes.default.svc:443"));
    }
    Ok(place)
}

fn split(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port; write host:port or :port"))?;
    // `u16::from_str` takes a sign, an address does not.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("{text:?} has no port between 0 and 65535 after its last colon"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(format!("{text:?} has an IPv6 address without brackets; write [::1]:443"));
    }
    Ok(HostPort { host: bare.unwrap_or(host).to_owned(), port })
}
