//! A path to its cluster: `/tunnel/{route}/{the API server's path}`, byte for byte.

use std::collections::BTreeMap;

use http::Uri;
use http::uri::PathAndQuery;
use proxy::head::TARGET_BYTES_MAX;
use proxy::request::{self, QUERY_PARAMETERS_MAX};
use tunnel::id::ClusterId;

use crate::config::ClusterConfig;
use crate::front_door::refusal::Refusal;

/// What stands before the cluster's name.
const PREFIX: &str = "/tunnel/";

/// Names in paths and the clusters they lead to.
pub(crate) struct Routes(BTreeMap<String, ClusterId>);

impl Routes {
    pub(crate) fn new(clusters: &[ClusterConfig]) -> Self {
        Self(clusters.iter().map(|cluster| (cluster.route.clone(), cluster.id.clone())).collect())
    }

    /// Whether the path is one of ours to route.
    pub(crate) fn is_tunnel(uri: &Uri) -> bool {
        uri.path().starts_with(PREFIX)
    }

    /// The cluster, and the path and query as the API server is to see them: not one byte is changed.
    pub(crate) fn route(&self, uri: &Uri) -> Result<(ClusterId, PathAndQuery), Refusal> {
        let target = uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
        if target.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TooLong { max: TARGET_BYTES_MAX });
        }
        let rest = target.strip_prefix(PREFIX).ok_or(Refusal::BadPath)?;
        let (name, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let name = decoded(name).ok_or(Refusal::BadPath)?;
        // The API server's root may be asked for without its slash.
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        let rest = PathAndQuery::try_from(rest).map_err(|_| Refusal::BadPath)?;
        if request::has_too_many_parameters(rest.path(), rest.query()) {
            return Err(Refusal::ManyParameters { max: QUERY_PARAMETERS_MAX });
        }
        match self.0.get(&name) {
            Some(cluster) => Ok((cluster.clone(), rest)),
            None if name.is_empty() => Err(Refusal::BadPath),
            None => Err(Refusal::UnknownCluster { cluster: name }),
        }
    }
}

/// The percent-decoded name (RFC 3986 section 2.1).
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (hex, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(uri: &str) -> Result<(String, String), Refusal> {
        let cluster = |id: &str, route: &str| ClusterConfig {
            id: id.parse().expect("a good id"),
            route: route.to_owned(),
            tokens: Vec::new(),
            certificates: Vec::new(),
            target_addr: String::new(),
            impersonate: Default::default(),
            labels: Default::default(),
            annotations: Default::default(),
        };
        let routes = Routes::new(&[cluster("edge-1", "edge-1"), cluster("odd", "Odd One")]);
        routes.route(&uri.parse().expect("a uri")).map(|(id, rest)| (id.to_string(), rest.as_str().to_owned()))
    }

    #[test]
    fn the_rest_of_the_path_is_not_touched() {
        for rest in ["/", "//", "/api//v1", "/a/../b", "/a%2Fb", "/%2e%2e/", "/x?", "/x?a=b&c", "/?watch=1", "/a;b=c", "/[::1]"] {
            assert_eq!(route(&format!("/tunnel/edge-1{rest}")), Ok(("edge-1".into(), rest.into())));
        }
        let long = format!("/x?{}", "q".repeat(8 * 1024));
        assert_eq!(route(&format!("/tunnel/edge-1{long}")), Ok(("edge-1".into(), long)));
    }

    #[test]
    fn the_root_may_lack_its_slash() {
        assert_eq!(route("/tunnel/edge-1"), Ok(("edge-1".into(), "/".into())));
        assert_eq!(route("/tunnel/edge-1?x"), Ok(("edge-1".into(), "/?x".into())));
    }

    #[test]
    fn an_odd_name_leads_to_its_alias() {
        assert_eq!(route("/tunnel/Odd%20One/api"), Ok(("odd".into(), "/api".into())));
    }

    #[test]
    fn what_names_no_cluster_is_refused() {
        assert_eq!(route("/tunnel/"), Err(Refusal::BadPath));
        assert_eq!(route("/tunnel//api"), Err(Refusal::BadPath));
        assert_eq!(route("/tunnel/%zz/api"), Err(Refusal::BadPath));
        assert_eq!(route("/other/edge-1/"), Err(Refusal::BadPath));
        assert_eq!(route("/tunnel/edge-2/api"), Err(Refusal::UnknownCluster { cluster: "edge-2".into() }));
        let long = format!("/tunnel/edge-1/{}", "x".repeat(33 * 1024));
        assert_eq!(route(&long), Err(Refusal::TooLong { max: 32 * 1024 }));
    }

    #[test]
    fn a_list_with_many_parameters_might_be_a_watch_and_is_refused_whoever_has_the_cluster() {
        let many = format!("?{}", "&".repeat(QUERY_PARAMETERS_MAX));
        for cluster in ["edge-1", "edge-2"] {
            let refused = Err(Refusal::ManyParameters { max: QUERY_PARAMETERS_MAX });
            assert_eq!(route(&format!("/tunnel/{cluster}/api/v1/pods{many}")), refused);
        }
        let exec = format!("/api/v1/namespaces/a/pods/b/exec{many}");
        assert_eq!(route(&format!("/tunnel/edge-1{exec}")), Ok(("edge-1".into(), exec)));
    }
}
