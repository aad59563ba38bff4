//! Policy: who the callers are by what they present, and what each may do, as the callers file says now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use ipnet::IpNet;
use proxy::hygiene;
use proxy::request::{self, RequestInfo};

use super::Presented;
use crate::auth::{CertificateName, TokenDigest, Tokens};

/// One set of rules; replaced whole.
pub(crate) struct Policy {
    callers: Vec<Known>,
    tokens: Tokens<usize>,
    certificates: BTreeMap<CertificateName, usize>,
    /// The longest prefixes first.
    networks: Vec<(IpNet, usize)>,
}

/// A caller as the file has it.
pub(crate) struct Known {
    pub(crate) name: Arc<str>,
    pub(crate) tokens: Vec<TokenDigest>,
    pub(crate) certificates: Vec<CertificateName>,
    pub(crate) networks: Vec<IpNet>,
    pub(crate) rules: Vec<Rule>,
    /// How many of its tokens stand in the file themselves, not as digests.
    pub(crate) n_plain_tokens: usize,
}

/// Verbs that a caller may use in clusters.
pub(crate) struct Rule {
    pub(crate) clusters: Vec<Pattern>,
    /// `None` = all.
    pub(crate) verbs: Option<BTreeSet<String>>,
}

/// A name, or all names that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exactly(String),
    Beginning(String),
}

impl Pattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(text) => name == text,
            Self::Beginning(text) => name.starts_with(text.as_str()),
        }
    }

    fn is_all(&self) -> bool {
        *self == Self::Beginning(String::new())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => write!(f, "{text:?}"),
            Self::Beginning(text) => write!(f, "\"{text}*\""),
        }
    }
}

/// Why a caller is nobody, or may not do what it asks for: for the log. The caller itself is told nothing that it did not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// It presents nothing, and its network is nobody's.
    Stranger,
    /// A token that nobody has, or a credential that is no token.
    WrongToken,
    /// A certificate that names nobody.
    UnknownCertificate,
    /// A certificate that is revoked, or whose CA is trusted no longer.
    RevokedCertificate,
    /// Its credentials name different callers.
    TwoCallers,
    /// The caller may not reach the cluster, or the cluster is not there.
    Cluster,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "it presents no credential and comes from no caller's network",
            Self::WrongToken => "its token is nobody's",
            Self::UnknownCertificate => "its certificate names nobody",
            Self::RevokedCertificate => "its certificate is revoked, or its CA is trusted no longer",
            Self::TwoCallers => "its credentials name different callers",
            Self::Cluster => "the caller may not reach the cluster, or there is no such cluster",
        })
    }
}

/// What a request needs to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// As the API server reads it.
    verb: Box<str>,
    /// It does more than its verb says: it talks with a container, and a WebSocket begins with a GET, or it may create what it
    /// changes.
    creates: bool,
}

impl Need {
    /// Of a request whose URI is the API server's own path and query.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        let is_upgrade = hygiene::upgrade(request.version(), request.headers()).is_some();
        let subresource = info.resource.as_ref().map_or("", |resource| resource.subresource.as_str());
        // Aggregated APIs have connections of their own (`virtualmachineinstances/vnc`); of all only a watch is a mere reading.
        let connects = matches!(subresource, "exec" | "attach" | "portforward") || (is_upgrade && info.verb != "watch");
        let creates = connects || info.creates_too(request::is_apply(request.headers()));
        Self { verb: info.verb.as_str().into(), creates }
    }

    /// `create` too for what connects, as API servers want it from Kubernetes 1.35 on, and for what may create.
    pub(crate) fn verbs(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.verb).chain(self.creates.then_some("create"))
    }
}

impl Policy {
    pub(crate) fn new(callers: Vec<Known>) -> Self {
        let tokens = Tokens::new(callers.iter().enumerate().map(|(index, caller)| (index, caller.tokens.as_slice())));
        let mut certificates = BTreeMap::new();
        let mut networks = Vec::new();
        for (index, caller) in callers.iter().enumerate() {
            certificates.extend(caller.certificates.iter().map(|name| (name.clone(), index)));
            networks.extend(caller.networks.iter().map(|network| (*network, index)));
        }
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self { callers, tokens, certificates, networks }
    }

    /// Everybody whom the file knows.
    pub(crate) fn callers(&self) -> &[Known] {
        &self.callers
    }

    /// Who presents this. Every credential that names somebody must name the same; the network counts for those alone who
    /// present nothing.
    pub(crate) fn identify(&self, presented: &Presented) -> Result<&Known, Denial> {
        if presented.is_unreadable {
            return Err(Denial::WrongToken);
        }
        let mut named = BTreeSet::new();
        for token in &presented.tokens {
            named.insert(*self.tokens.owner_of(token).ok_or(Denial::WrongToken)?);
        }
        if let Some(shown) = &presented.certificate {
            let names = shown.certificate.uris.iter().cloned().map(CertificateName::Uri);
            let names = names.chain(shown.certificate.common_name.clone().map(CertificateName::CommonName));
            named.extend(names.filter_map(|name| self.certificates.get(&name)));
            if named.is_empty() {
                return Err(Denial::UnknownCertificate);
            }
        }
        if named.is_empty() {
            named.extend(self.owner_of_address(presented.address));
        }
        match (named.len(), named.first().and_then(|index| self.callers.get(*index))) {
            (1, Some(caller)) => Ok(caller),
            (0 | 1, _) => Err(Denial::Stranger),
            (_, _) => Err(Denial::TwoCallers),
        }
    }

    fn owner_of_address(&self, address: IpAddr) -> Option<usize> {
        // A socket of both families has IPv4 peers in IPv6's clothes.
        let address = address.to_canonical();
        self.networks.iter().find(|(network, _)| network.contains(&address)).map(|(_, index)| *index)
    }
}

impl Known {
    /// Whether anything at all is allowed in the cluster.
    pub(crate) fn may_reach(&self, cluster: &str) -> bool {
        self.rules_for(cluster).next().is_some()
    }

    /// Whether it may reach every cluster there is, and so may know which there are not.
    pub(crate) fn may_reach_all(&self) -> bool {
        self.rules.iter().any(|rule| rule.clusters.iter().any(Pattern::is_all))
    }

    /// The verb that is missing.
    pub(crate) fn lacks<'a>(&self, cluster: &str, need: &'a Need) -> Option<&'a str> {
        let allows =
            |verb: &str| self.rules_for(cluster).any(|rule| rule.verbs.as_ref().is_none_or(|verbs| verbs.contains(verb)));
        need.verbs().find(|verb| !allows(verb))
    }

    fn rules_for<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(|rule| rule.clusters.iter().any(|pattern| pattern.matches(cluster)))
    }
}

#[cfg(test)]
mod tests;
