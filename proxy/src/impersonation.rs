//! Impersonation: as whom a request may ask to act, judged by a list of exact names.
//!
//! Server and agent each hold such a list and forward what both allow unchanged. Headers are read as the API server reads
//! them (k8s.io/apiserver, `pkg/endpoints/filters/impersonation.go`), and what it might read otherwise is refused.

use http::HeaderMap;
use serde::Deserialize;

use crate::hygiene;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";

/// What Kubernetes calls the accounts of pods: `system:serviceaccount:NAMESPACE:NAME`.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Whom a request may impersonate; nobody by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Impersonation {
    /// For `Impersonate-User`.
    pub users: Vec<Users>,
    /// For `Impersonate-Group`; an empty list allows none.
    pub groups: Vec<Group>,
}

/// One user, or all service accounts of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Users {
    /// The user of this name.
    Exactly(String),
    /// Written `system:serviceaccount:NAMESPACE:*`.
    ServiceAccountsOf {
        /// The namespace.
        namespace: String,
    },
}

/// One group, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Group(String);

impl Impersonation {
    /// Whether a request may be sent on as far as impersonation goes: it asks for none, or for one user on the list and
    /// groups on the list, and for nothing else.
    ///
    /// # Errors
    /// Why not, in words for the caller that name none but its own headers.
    pub fn judge(&self, headers: &HeaderMap) -> Result<(), String> {
        let Some(asked) = hygiene::impersonation(headers) else { return Ok(()) };
        if self.users.is_empty() {
            return Err(format!("the header {asked} is not allowed: nobody may be impersonated here"));
        }
        if let Some(other) = hygiene::impersonation_beyond(headers, &[USER, GROUP]) {
            return Err(format!("the header {other} is not allowed: only a user and groups may be impersonated"));
        }
        let mut users = headers.get_all(USER).iter();
        let (Some(user), None) = (users.next(), users.next()) else {
            return Err("exactly one Impersonate-User is needed".to_owned());
        };
        let user = user.to_str().unwrap_or_default();
        if !self.users.iter().any(|allowed| allowed.matches(user)) {
            return Err("this Impersonate-User is not on the list of who may be impersonated".to_owned());
        }
        let is_listed = |group: &str| self.groups.iter().any(|allowed| allowed.0 == group);
        if !headers.get_all(GROUP).iter().all(|group| group.to_str().is_ok_and(is_listed)) {
            return Err("an Impersonate-Group is not on the list of who may be impersonated".to_owned());
        }
        Ok(())
    }
}

impl Users {
    fn matches(&self, user: &str) -> bool {
        match self {
            Self::Exactly(name) => name == user,
            Self::ServiceAccountsOf { namespace } => {
                let name = user.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
                // Any other character makes it a plain user to the API server, with a right of its own to impersonate it.
                let is_name = |name: &str| {
                    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
                    !name.is_empty() && name.bytes().all(good)
                };
                name.is_some_and(|(of, name)| of == namespace && is_name(name))
            }
        }
    }
}

impl TryFrom<String> for Users {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let namespace = text.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.strip_suffix(":*"));
        match namespace.filter(|namespace| !namespace.is_empty() && !namespace.contains([':', '*'])) {
            Some(namespace) => Ok(Self::ServiceAccountsOf { namespace: namespace.to_owned() }),
            None if text.contains('*') => Err(format!("{text:?}: a * may stand only in system:serviceaccount:NAMESPACE:*")),
            None => exact(text).map(Self::Exactly),
        }
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.contains('*') {
            return Err(format!("{text:?}: a group is named exactly, without *"));
        }
        exact(text).map(Self)
    }
}

/// A name that a header can carry.
fn exact(text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty, a name is needed".to_owned());
    }
    let fits = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.trim() == text;
    if fits { Ok(text) } else { Err(format!("{text:?} cannot stand in a header")) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const LISTED: &str = r#"{"users": ["jane", "system:serviceaccount:argocd:*"], "groups": ["dev", "system:authenticated"]}"#;

    #[test]
    fn who_asks_for_nothing_passes_any_list() {
        assert_eq!(Impersonation::default().judge(&headers(&[("accept", "x"), ("x-impersonated", "y")])), Ok(()));
    }

    #[test]
    fn without_a_list_nobody_is_impersonated() {
        for name in ["Impersonate-User", "Impersonate-Group", "impersonate_user"] {
            let why = Impersonation::default().judge(&headers(&[(name, "jane")])).expect_err(name);
            assert!(why.contains("nobody may be impersonated"), "{why}");
        }
    }

    #[test]
    fn a_listed_user_with_listed_groups_passes() {
        for allowed in [
            &[("impersonate-user", "jane")][..],
            &[("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-group", "system:authenticated")],
            &[("impersonate-user", "system:serviceaccount:argocd:sync-1")],
        ] {
            assert_eq!(listed().judge(&headers(allowed)), Ok(()), "{allowed:?}");
        }
    }

    #[test]
    fn whatever_is_not_exactly_listed_is_refused() {
        for refused in [
            &[("impersonate-user", "Jane")][..],
            &[("impersonate-user", "")],
            &[("impersonate-user", "jane"), ("impersonate-user", "jane")],
            &[("impersonate-group", "dev")],
            &[("impersonate-user", "jane"), ("impersonate-group", "system:masters")],
            &[("impersonate-user", "jane"), ("impersonate-group", "dev,system:masters")],
            &[("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-group", "")],
            &[("impersonate-user", "jane"), ("impersonate-uid", "1")],
            &[("impersonate-user", "jane"), ("impersonate-extra-scopes", "view")],
            &[("impersonate-user", "jane"), ("impersonate_user", "jane")],
            &[("impersonate-user", "jane"), ("impersonate_group", "dev")],
            &[("impersonate-user", "jane"), ("connection", "close, Impersonate-User")],
            &[("impersonate-user", "jane"), ("connection", "impersonate-group")],
            &[("impersonate-user", "system:serviceaccount:argocd:")],
            &[("impersonate-user", "system:serviceaccount:argocd:*")],
            &[("impersonate-user", "system:serviceaccount:argocd:a:b")],
            &[("impersonate-user", "system:serviceaccount:argocd-2:sync")],
            &[("impersonate-user", "system:serviceaccount:argocd")],
        ] {
            assert!(listed().judge(&headers(refused)).is_err(), "{refused:?}");
        }
        let mut odd = headers(&[]);
        odd.insert("impersonate-user", HeaderValue::from_bytes(b"jane\xff").expect("a value"));
        assert!(listed().judge(&odd).is_err());
    }

    #[test]
    fn a_list_with_patterns_that_would_mean_nothing_is_a_mistake() {
        for wrong in [
            r#"{"users": ["*"]}"#,
            r#"{"users": ["system:serviceaccount:*:*"]}"#,
            r#"{"users": ["system:serviceaccount::*"]}"#,
            r#"{"users": ["ja*"]}"#,
            r#"{"users": [""]}"#,
            r#"{"users": [" jane"]}"#,
            r#"{"groups": ["system:*"]}"#,
            r#"{"groups": [7]}"#,
            r#"{"uids": ["1"]}"#,
        ] {
            assert!(serde_json::from_str::<Impersonation>(wrong).is_err(), "{wrong}");
        }
    }

    fn listed() -> Impersonation {
        serde_json::from_str(LISTED).expect("a list")
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).expect("a name"), value.parse().expect("a value"))
        };
        // Collecting would keep the last of a name only.
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append::<HeaderName>(name, value);
        }
        headers
    }
}
