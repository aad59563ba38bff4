//! The events of one watch: lines, their sequence, and how long each took.

use std::time::Duration;

use super::Tally;

/// What has come on one watch.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    first: Option<u64>,
    last: Option<u64>,
    good: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// How many came in their order.
    pub(super) fn good(&self) -> u64 {
        self.good
    }

    /// Whether nothing more is to come of `count` events: the last is there, whatever is missing before it.
    pub(super) fn is_over(&self, count: u64) -> bool {
        self.first.zip(self.last).is_some_and(|(first, last)| last - first + 1 >= count)
    }

    /// Takes bytes of the watch that came at `now`, since 1970.
    pub(super) fn take(&mut self, mut data: &[u8], now: Duration, tally: &mut Tally) {
        tally.bytes += data.len() as u64;
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = data.split_at(end + 1);
            data = rest;
            if self.partial.is_empty() {
                self.line(line, now, tally);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole, now, tally);
            }
        }
        self.partial.extend_from_slice(data);
    }

    fn line(&mut self, line: &[u8], now: Duration, tally: &mut Tally) {
        let (Some(seq), Some(sent)) = (number(line, b"\"seq\":"), number(line, b"\"sent\":")) else {
            tally.fail(|| "an event has no `seq` or no `sent`".into());
            return;
        };
        match self.last {
            Some(last) if seq <= last => {
                tally.fail(|| format!("event {seq} came after event {last}"));
                return;
            }
            Some(last) if seq > last + 1 => tally.tell(|| format!("event {seq} came after event {last}")),
            Some(_) | None => {}
        }
        self.first = self.first.or(Some(seq));
        self.last = Some(seq);
        self.good += 1;
        tally.pass(now.saturating_sub(Duration::from_nanos(sent)));
    }
}

/// The number that follows `key` in a line.
fn number(line: &[u8], key: &[u8]) -> Option<u64> {
    let at = line.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = line[at..].iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    let digits: Vec<u8> = digits.copied().collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, sent: u64) -> String {
        format!("{{\"type\":\"MODIFIED\",\"seq\":{seq},\"sent\":{sent},\"pad\":\"xx\"}}\n")
    }

    fn take(chunks: &[&str], now: u64) -> (Events, Tally) {
        let (mut events, mut tally) = (Events::new(), Tally::new());
        for chunk in chunks {
            events.take(chunk.as_bytes(), Duration::from_nanos(now), &mut tally);
        }
        (events, tally)
    }

    #[test]
    fn an_event_is_timed_from_when_it_was_sent() {
        let (events, tally) = take(&[&event(0, 1_000_000)], 1_250_000);
        assert_eq!((events.good(), tally.ok, tally.failed), (1, 1, 0));
        assert_eq!(tally.outcome_of(1.0).latency_us["max"], 250.0);
    }

    #[test]
    fn an_event_that_comes_in_pieces_is_one_event() {
        let line = event(0, 1) + &event(1, 2);
        let (head, tail) = line.split_at(20);
        let (middle, tail) = tail.split_at(40);
        let (events, tally) = take(&[head, middle, tail], 3);
        assert_eq!((events.good(), tally.failed), (2, 0));
    }

    #[test]
    fn events_left_out_are_not_counted_as_come_and_are_told() {
        let (events, tally) = take(&[&event(0, 1), &event(3, 1)], 2);
        assert_eq!((events.good(), events.is_over(4), events.is_over(5)), (2, true, false));
        assert_eq!(tally.outcome_of(1.0).errors, ["event 3 came after event 0"]);
    }

    #[test]
    fn an_event_that_comes_twice_is_a_failure() {
        let (events, tally) = take(&[&event(0, 1), &event(0, 1)], 2);
        assert_eq!((events.good(), tally.ok, tally.failed), (1, 1, 1));
    }
}
