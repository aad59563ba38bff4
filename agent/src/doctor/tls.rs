//! TLS and the clock: whether the hub can prove that it is the hub, and what else might have been shown instead.

use std::time::{Duration, SystemTime};

use host::certificate::{Described, Validity};
use host::tls::{Alpn, ClientFiles, ClientTls, Failure};
use jiff::Timestamp;

use super::Patient;
use super::report::Verdict;
use crate::connect::{DialError, Word};

/// How far two clocks may be apart before anybody should care: certificates and tokens are made with more leeway than this.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// How long before its end a certificate is worth a word: who renews by hand needs days.
const EXPIRY_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

impl Patient {
    /// TLS as the agent does it; when that fails, again without any belief, to see what was shown.
    pub(super) async fn tls(&self) -> Verdict {
        if !self.config.server.tls {
            return Verdict::warning(
                "none: the hub is dialled by ws://",
                "The network sees the token and all traffic, so give the hub's public listener a certificate and dial it by wss://.",
            );
        }
        let connection = match self.dialer.way.dial(&self.config.server).await {
            Ok(connection) => connection,
            Err(error) => return Verdict::failed(error.to_string(), "The way was open a moment ago, so ask the doctor again."),
        };
        match self.dialer.shake_hands(connection).await {
            Ok((_, shown)) => self.believed(shown.and_then(|shown| shown.described())),
            Err(DialError::Tls { source }) => self.disbelieved(&source).await,
            Err(error) => Verdict::failed(error.to_string(), "The handshake did not come about, so ask the doctor again."),
        }
    }

    fn believed(&self, shown: Option<Described>) -> Verdict {
        let Some(shown) = shown else { return Verdict::fine("the hub's certificate is believed") };
        let seen = format!("{} by {}, good until {}", shown.subject, shown.issuer, day(shown.validity.not_after));
        if shown.validity.left(self.host.wall_clock()) > EXPIRY_SOON {
            return Verdict::Fine(seen);
        }
        Verdict::warning(seen, "The hub's certificate ends soon, so have the hub's people look at what should renew it.")
    }

    async fn disbelieved(&self, error: &std::io::Error) -> Verdict {
        let failure = Failure::of(error);
        let (shown, date) = self.look_without_belief().await;
        let issuer = shown.as_ref().map_or_else(|| "an unknown issuer".to_owned(), |shown| format!("\"{}\"", shown.issuer));
        let believed = match &self.config.server_ca_cert {
            Some(path) => format!("the CA in {path}"),
            None => "one of the machine's own roots".to_owned(),
        };
        let seen = match &shown {
            Some(shown) => format!("{error}; what was shown is \"{}\" by {issuer}", shown.subject),
            None => error.to_string(),
        };
        let fix = match failure {
            Failure::Issuer => format!(
                "The certificate is signed by {issuer}, which is not {believed}: if that is a proxy or firewall that intercepts TLS, \
                 have {} excepted from it; if it is the hub's own CA, give its certificate by --server-ca-cert.",
                self.hub()
            ),
            Failure::Expired | Failure::NotYetValid => {
                wrong_time(self.host.wall_clock(), shown.map(|shown| shown.validity), date)
            }
            Failure::Name => {
                let names = shown.map(|shown| shown.names.join(", ")).unwrap_or_default();
                format!(
                    "The certificate is for {names} and not for {}, so dial one of these by --server, or have the name added to the hub's certificate.",
                    self.config.server.host
                )
            }
            Failure::NoTls => format!(
                "What answers at {} speaks no TLS, so correct the port of --server or have TLS turned on there.",
                self.hub()
            ),
            Failure::Alert => {
                "The hub ended the handshake, so look at its log, and at --client-cert if it asks for certificates of agents."
                    .to_owned()
            }
            Failure::Certificate => "The hub's certificate is not usable, so have it made anew by the hub's people.".to_owned(),
            Failure::Silent => {
                "What took the connection says nothing, so look whether the hub hangs, and at the balancer before it.".to_owned()
            }
            Failure::Broken => format!(
                "The connection was cut inside the handshake, which firewalls do to TLS that they may not read, so have {} excepted from inspection.",
                self.hub()
            ),
        };
        Verdict::failed(seen, fix)
    }

    /// This machine's clock beside the hub's, or beside that of whoever stands in its place: nothing is shown to it.
    pub(super) async fn clock(&self) -> Verdict {
        let Some(date) = self.look_without_belief().await.1 else {
            return Verdict::Skipped("needs an HTTP answer with a Date".to_owned());
        };
        let now = self.host.wall_clock();
        let apart = skew(now, date);
        if apart <= SKEW_MAX {
            return Verdict::fine(format!("{} s from the hub's", apart.as_secs()));
        }
        let direction = if now > date { "ahead of" } else { "behind" };
        Verdict::warning(
            format!("{} s {direction} the hub's: {} here, {} there", apart.as_secs(), minute(now), minute(date)),
            "Certificates and tokens are judged by this machine's clock, so have it set by NTP (or the hub's, if that one is wrong).",
        )
    }

    /// What is shown to who believes everybody, and the time of day there.
    async fn look_without_belief(&self) -> (Option<Described>, Option<SystemTime>) {
        let look = async {
            let connection = self.dialer.way.dial(&self.config.server).await.ok()?;
            if !self.config.server.tls {
                return Some((None, self.dialer.ask_time(connection).await.ok().and_then(date)));
            }
            let identity = self.config.client_identity.clone().map(|identity| (identity.cert, identity.key));
            // A certificate is no secret, and its key stays here. The token is not shown.
            let files = ClientFiles { ca: None, identity, insecure: true };
            let tls = ClientTls::new(&self.host, "doctor", files).ok()?;
            let (connection, shown) = tls.connect(connection, &self.config.server.host, Alpn::Http1).await.ok()?;
            let date = self.dialer.ask_time(connection).await.ok().and_then(date);
            Some((shown.certificate.and_then(|shown| shown.described()), date))
        };
        look.await.unwrap_or_default()
    }
}

/// Whether the clock or the certificate is at fault: a certificate that is good by the other end's clock blames this one's.
fn wrong_time(now: SystemTime, shown: Option<Validity>, date: Option<SystemTime>) -> String {
    let bounds = |shown: &Validity| format!("from {} to {}", day(shown.not_before), day(shown.not_after));
    match (shown, date) {
        (Some(shown), Some(date)) if (shown.not_before..=shown.not_after).contains(&date) => format!(
            "This machine's clock says {} and the other end's {}, when the certificate is good, so set this clock right (NTP, chrony).",
            minute(now),
            minute(date)
        ),
        (Some(shown), Some(date)) => format!(
            "The hub's certificate is good {}, and it is {} by the other end's clock, so have the certificate renewed by the hub's people.",
            bounds(&shown),
            minute(date)
        ),
        (shown, _) => format!(
            "The hub's certificate{} is not of this time by this machine's clock, {}, so compare the clock, or have the certificate renewed by the hub's people.",
            shown.map(|shown| format!(", good {},", bounds(&shown))).unwrap_or_default(),
            minute(now)
        ),
    }
}

fn date(word: Word) -> Option<SystemTime> {
    word.date
}

fn skew(here: SystemTime, there: SystemTime) -> Duration {
    here.duration_since(there).unwrap_or_else(|error| error.duration())
}

fn day(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

fn minute(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().expect("a time").into()
    }

    #[test]
    fn a_clock_is_blamed_only_where_the_certificate_is_good_by_the_other_ends() {
        let shown = || Some(Validity { not_before: at("2020-01-01T00:00:00Z"), not_after: at("2021-01-01T00:00:00Z") });
        let now = at("2026-03-01T12:00:00Z");
        let told = wrong_time(now, shown(), Some(at("2020-06-01T00:00:00Z")));
        assert!(told.contains("set this clock right"), "{told}");
        // A few minutes off, and over for years by both.
        for date in ["2026-03-01T12:05:00Z", "2026-03-01T12:00:00Z", "2019-03-01T12:00:00Z"] {
            let told = wrong_time(now, shown(), Some(at(date)));
            assert!(told.contains("have the certificate renewed") && !told.contains("set this clock"), "{told}");
        }
        for shown in [shown(), None] {
            let told = wrong_time(now, shown, None);
            assert!(told.contains("compare the clock, or have") && !told.contains("clock is right"), "{told}");
        }
    }
}
