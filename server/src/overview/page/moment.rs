//! Moments, spans and sizes as people read them.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// A moment as a reader of the page sees it.
pub(super) struct Moment {
    /// For machines (RFC 3339), to the second.
    pub(super) machine: String,
    /// The same for people.
    pub(super) exact: String,
    /// How long ago.
    pub(super) ago: String,
}

impl Moment {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        let machine = at.round(Unit::Second).unwrap_or(at).to_string();
        let exact = machine.replace('T', " ").replace('Z', " UTC");
        let ago = ago(u64::try_from(now.duration_since(at).as_secs()).unwrap_or_default());
        Self { machine, exact, ago }
    }
}

/// How long ago something was.
pub(super) fn ago(seconds: u64) -> String {
    if seconds < 1 { "just now".to_owned() } else { format!("{} ago", long(seconds)) }
}

/// In the largest unit of which there are two.
fn long(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

/// A span of milliseconds or seconds.
pub(super) fn span(time: Duration) -> String {
    match time.as_millis() {
        0 => "under 1 ms".to_owned(),
        ms @ 1..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{:.1} s", time.as_secs_f64()),
        10_000.. => long(time.as_secs()),
    }
}

/// Bytes in the largest unit of which there is one.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut of_unit = bytes as f64 / 1024.0;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if of_unit < 1024.0 {
            break;
        }
        of_unit /= 1024.0;
        unit = larger;
    }
    if of_unit < 10.0 { format!("{of_unit:.1} {unit}") } else { format!("{of_unit:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_in_units_that_fit() {
        assert_eq!([0, 1023, 1024, 10 << 20, 1_500_000_000].map(size), ["0 B", "1023 B", "1.0 KiB", "10 MiB", "1.4 GiB"]);
        assert_eq!(size(u64::MAX), "16384 PiB");
        assert_eq!([0, 7, 1_234, 59_999].map(|ms| span(Duration::from_millis(ms))), ["under 1 ms", "7 ms", "1.2 s", "59 s"]);
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let ago = |seconds: i64| Moment::new(now - Duration::from_secs(seconds.unsigned_abs()), now).ago;
        assert_eq!(
            [0, 1, 119, 120, 7_200, 172_800].map(ago),
            ["just now", "1 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago"]
        );
        assert_eq!(Moment::new(now + Duration::from_secs(60), now).ago, "just now", "clocks differ");
    }
}
