//! Registration in Argo CD beside the callers file: whether those to whom clusters are shown would be let in.

use host::Host;

use super::Report;
use crate::auth::TokenDigest;
use crate::callers;
use crate::config::ServerConfig;

pub(super) fn check(config: &ServerConfig, host: &Host, report: &mut Report<'_>) {
    let Some(argocd) = &config.argocd else { return };
    let (n, namespace, url) = (config.clusters.len(), &argocd.namespace, &argocd.url);
    report.ok(&format!("--argocd-namespace {namespace}: {n} clusters would be registered as {url}/tunnel/ID"));
    if let Err(error) = host.read_file(&argocd.api.token_path) {
        let path = &argocd.api.token_path;
        report.warn(&format!("--argocd-api-token-path {path} cannot be read here: {error}; a pod has its service account's"));
    }
    let Some(policy) = config.callers_file.as_ref().and_then(|path| callers::read(host, path).ok()) else { return };
    let Some(path) = &argocd.token_file else {
        if argocd.files.identity.is_none() {
            report
                .warn("--callers is given, and Argo CD would have nothing to show: --argocd-client-cert, or --argocd-token-file");
        }
        return;
    };
    // What cannot be read was told already.
    let Ok(token) = host.read_file(path) else { return };
    let token = TokenDigest::of_bytes(token.trim_ascii());
    if !policy.callers().iter().any(|caller| caller.tokens.contains(&token)) {
        report.warn(&format!("--argocd-token-file {path} has a token that no caller has: Argo CD would be refused"));
    }
}
