//! The query of a request, decoded as `application/x-www-form-urlencoded`.

use super::status::Status;

/// Pairs in the order they were sent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of `name`; an empty one counts as absent, as it does for a real API server.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether `name` is set to something other than `0` or `false`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "0" | "false"))
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        self.get(name)
            .map(|value| value.parse().map_err(|_| Status::bad_request(format!("invalid {name}: {value:?} is no number"))))
            .transpose()
    }

    /// Whether the write should be tried without being kept.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Status::unprocessable(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""))),
        }
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let value = hex(*high).zip(hex(*low)).map_or(0, |(high, low)| high * 16 + low);
                bytes.push(u8::try_from(value).unwrap_or_default());
                rest = after;
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_pair_by_pair() {
        let query = Query::parse(Some("command=echo&command=a+b%2Fc&watch=1&empty=&bad=%zz"));
        assert_eq!(query.all("command"), ["echo", "a b/c"]);
        assert!(query.flag("watch"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("bad"), Some("%zz"));
    }

    #[test]
    fn an_unknown_dry_run_is_refused() {
        assert_eq!(Query::parse(Some("dryRun=Some")).dry_run().map_err(|s| s.code()), Err(422));
        assert_eq!(Query::parse(Some("dryRun=All")).dry_run(), Ok(true));
    }
}
