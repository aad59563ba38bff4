//! The text of a refusal: its beginning as far as it can be logged, and whether a hub wrote it or somebody in its place.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::dial::UPGRADE_MAX;

/// How much of a refusal's text is logged.
const TEXT_BYTES_MAX: usize = 512;

/// A text with so many bytes in a row of a credential is not kept: fewer may stand in any text, and lead nobody to the rest.
const SECRET_PART: usize = 12;

/// Stands for a text that repeats a credential, as servers do that answer with the headers of the request.
const WITHHELD: &str = "(its text repeats a credential that it was sent, and is withheld)";

/// What hubs answer at their agents' door, of version 1 too.
const OF_HUBS: [(StatusCode, &str); 10] = [
    (StatusCode::UNAUTHORIZED, "the token is missing or unknown"),
    (StatusCode::UNAUTHORIZED, "unauthorized"),
    (StatusCode::FORBIDDEN, "the client certificate is revoked"),
    (StatusCode::FORBIDDEN, "the client certificate is not the one that goes with the token"),
    (StatusCode::FORBIDDEN, "browsers are not welcome here"),
    (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    (StatusCode::SERVICE_UNAVAILABLE, "too many agents connect at once"),
    (StatusCode::SERVICE_UNAVAILABLE, "the cluster has too many sessions"),
    (StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_TRIALS),
    (StatusCode::UPGRADE_REQUIRED, "this is a WebSocket (version 13) for agents"),
];

/// What a hub says to a trial when others are under way.
pub(crate) const TOO_MANY_TRIALS: &str = "the cluster has too many trials";

/// Whether this is a hub's own answer, and not that of a gateway in its place.
pub(crate) fn is_of_hub(status: StatusCode, text: &str) -> bool {
    OF_HUBS.iter().any(|(of, words)| *of == status && text.eq_ignore_ascii_case(words))
}

/// The beginning of what an answer says, within the time of an upgrade, without what a terminal would obey and without what
/// `secrets` hold.
pub(super) async fn text_of(response: Response<Incoming>, secrets: &[SecretString]) -> String {
    let (status, mut body) = (response.status(), response.into_body());
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() >= TEXT_BYTES_MAX + SECRET_PART {
                break;
            }
        }
    };
    // What came in time is told.
    let _ = timeout(UPGRADE_MAX, read).await;
    printable(status, bytes, secrets)
}

fn printable(status: StatusCode, mut bytes: Vec<u8>, secrets: &[SecretString]) -> String {
    // As long as a credential needs that begins at the last place that is logged.
    bytes.truncate(TEXT_BYTES_MAX + SECRET_PART);
    let is_secret = repeats_any(&bytes, secrets);
    bytes.truncate(TEXT_BYTES_MAX);
    let text: String = String::from_utf8_lossy(&bytes).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match is_secret && !is_of_hub(status, &text) {
        true => WITHHELD.to_owned(),
        false => text,
    }
}

/// Whether a part of a secret, or of its base64, is in `bytes`.
pub(super) fn repeats_any(bytes: &[u8], secrets: &[SecretString]) -> bool {
    secrets.iter().any(|secret| {
        let secret = secret.expose_secret();
        repeats(bytes, secret.as_bytes()) || repeats(bytes, STANDARD.encode(secret).as_bytes())
    })
}

fn repeats(bytes: &[u8], secret: &[u8]) -> bool {
    let length = secret.len().min(SECRET_PART);
    length > 0 && secret.windows(length).any(|part| bytes.windows(length).any(|window| window == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "6f1c0b7d5e2a49c8b3d7";

    fn told(status: StatusCode, text: &str) -> String {
        printable(status, text.as_bytes().to_vec(), &[SECRET.into()])
    }

    #[test]
    fn a_text_that_repeats_a_credential_is_withheld_wherever_it_stands() {
        let far = format!("{}{SECRET}", "x".repeat(TEXT_BYTES_MAX - 1));
        let encoded = STANDARD.encode(SECRET);
        for text in [&format!("GET /connect\r\nauthorization: Bearer {SECRET}"), &far, &encoded, &SECRET[..14].to_owned()] {
            assert_eq!(told(StatusCode::OK, text), WITHHELD, "{text}");
        }
        assert_eq!(printable(StatusCode::OK, b"user:pass".to_vec(), &["pass".into()]), WITHHELD);
    }

    #[test]
    fn what_repeats_none_is_told_to_its_bound_without_what_a_terminal_would_obey() {
        assert_eq!(told(StatusCode::OK, " no\x1b[2J\n"), "no [2J");
        assert_eq!(told(StatusCode::OK, &"x".repeat(4 * TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_hubs_own_words_are_told_although_a_token_is_a_word_of_them() {
        let text = "the token is missing or unknown\n".as_bytes().to_vec();
        assert_eq!(printable(StatusCode::UNAUTHORIZED, text, &["token".into()]), "the token is missing or unknown");
    }
}
