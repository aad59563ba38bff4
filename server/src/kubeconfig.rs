//! A kubeconfig that leads kubectl to a cluster through the hub.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

/// What kubectl presents; it does so over https only.
#[derive(Default)]
pub(crate) struct Credential {
    pub(crate) token: Option<SecretString>,
    /// A client certificate and its key, PEM.
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Credential {
    fn to_user(&self) -> String {
        let token = self.token.as_ref().map(|token| format!("    token: {}\n", quoted(token.expose_secret())));
        let certificate = self.certificate.as_ref().map(|(cert, key)| {
            let [cert, key] = [cert, key].map(|pem| STANDARD.encode(pem));
            format!("    client-certificate-data: {cert}\n    client-key-data: {key}\n")
        });
        match [token, certificate].into_iter().flatten().collect::<String>() {
            none if none.is_empty() => " {}\n".to_owned(),
            fields => format!("\n{fields}"),
        }
    }
}

/// The file's text: YAML with every name quoted. `url` is the internal listener, `ca` the PEM that signs its certificate.
pub(crate) fn kubeconfig(cluster: &str, url: &str, ca: Option<&[u8]>, credential: &Credential) -> String {
    let user = credential.to_user();
    let server = quoted(&format!("{}/tunnel/{}", url.trim_end_matches('/'), percent_encoded(cluster)));
    let name = quoted(cluster);
    let ca = ca.map(|pem| format!("    certificate-authority-data: {}\n", STANDARD.encode(pem))).unwrap_or_default();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {server}
{ca}users:
- name: postern
  user:{user}contexts:
- name: {name}
  context:
    cluster: {name}
    user: postern
current-context: {name}
"
    )
}

/// A JSON string, which is a YAML one too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A segment of a path (RFC 3986 section 3.3), all but unreserved characters encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_leads_through_the_hub() {
        insta::assert_snapshot!(
            "kubeconfig",
            kubeconfig("edge-1", "https://hub.example:8080/", Some(b"PEM"), &Credential::default())
        );
    }

    #[test]
    fn a_caller_may_stand_in_it_with_all_that_it_presents() {
        let certificate = Some((b"CERT".to_vec(), b"KEY".to_vec()));
        let credential = Credential { token: Some("a \"token\"".to_owned().into()), certificate };
        insta::assert_snapshot!("kubeconfig_of_a_caller", kubeconfig("edge-1", "https://hub.example:8080", None, &credential));
    }

    #[test]
    fn an_odd_name_is_encoded_in_the_path_and_quoted_elsewhere() {
        let text = kubeconfig("Odd \"Name\"", "http://127.0.0.1:8080", None, &Credential::default());
        assert!(text.contains("server: \"http://127.0.0.1:8080/tunnel/Odd%20%22Name%22\"\n"), "{text}");
        assert!(text.contains("current-context: \"Odd \\\"Name\\\"\"\n"), "{text}");
    }
}
