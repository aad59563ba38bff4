//! Where a release was built, from what and by what: a SLSA provenance predicate, version 1.
//!
//! The fields are those of the build type that GitHub defines for its workflows
//! (<https://actions.github.io/buildtypes/workflow/v1>); cosign wraps and signs it with the identity of the workflow's run.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What the workflow's environment says. Anywhere else something is missing, which the error names.
pub(super) fn predicate(env: &dyn Fn(&str) -> Option<String>) -> Result<Value> {
    let get = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .with_context(|| format!("{name} is not set: only a workflow of GitHub has provenance"))
    };
    let repository = format!("{}/{}", get("GITHUB_SERVER_URL")?, get("GITHUB_REPOSITORY")?);
    let reference = get("GITHUB_REF")?;
    // OWNER/NAME/PATH@REF
    let workflow = get("GITHUB_WORKFLOW_REF")?;
    let path =
        workflow.split('@').next().and_then(|place| place.splitn(3, '/').nth(2)).context("GITHUB_WORKFLOW_REF has no path")?;
    Ok(json!({
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": { "workflow": { "ref": reference, "repository": repository, "path": path } },
            "internalParameters": {
                "github": {
                    "event_name": get("GITHUB_EVENT_NAME")?,
                    "repository_id": get("GITHUB_REPOSITORY_ID")?,
                    "repository_owner_id": get("GITHUB_REPOSITORY_OWNER_ID")?,
                    "runner_environment": get("RUNNER_ENVIRONMENT")?,
                }
            },
            "resolvedDependencies": [
                { "uri": format!("git+{repository}@{reference}"), "digest": { "gitCommit": get("GITHUB_SHA")? } }
            ],
        },
        "runDetails": {
            "builder": { "id": format!("https://github.com/actions/runner/{}", get("RUNNER_ENVIRONMENT")?) },
            "metadata": {
                "invocationId":
                    format!("{repository}/actions/runs/{}/attempts/{}", get("GITHUB_RUN_ID")?, get("GITHUB_RUN_ATTEMPT")?),
            },
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(name: &str) -> Option<String> {
        let value = match name {
            "GITHUB_SERVER_URL" => "https://github.com",
            "GITHUB_REPOSITORY" => "somebody/postern",
            "GITHUB_REF" => "refs/tags/v0.1.0",
            "GITHUB_WORKFLOW_REF" => "somebody/postern/.github/workflows/release.yml@refs/tags/v0.1.0",
            "GITHUB_EVENT_NAME" => "push",
            "GITHUB_REPOSITORY_ID" => "7",
            "GITHUB_REPOSITORY_OWNER_ID" => "8",
            "RUNNER_ENVIRONMENT" => "github-hosted",
            "GITHUB_SHA" => "c0ffee",
            "GITHUB_RUN_ID" => "42",
            "GITHUB_RUN_ATTEMPT" => "2",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn a_provenance_names_the_workflow_the_commit_and_the_run() {
        let predicate = predicate(&workflow).expect("a workflow");
        let of = |path: &str| predicate.pointer(path).and_then(Value::as_str).expect("a text").to_owned();
        assert_eq!(of("/buildDefinition/externalParameters/workflow/path"), ".github/workflows/release.yml");
        assert_eq!(of("/buildDefinition/resolvedDependencies/0/uri"), "git+https://github.com/somebody/postern@refs/tags/v0.1.0");
        assert_eq!(of("/buildDefinition/resolvedDependencies/0/digest/gitCommit"), "c0ffee");
        assert_eq!(of("/runDetails/metadata/invocationId"), "https://github.com/somebody/postern/actions/runs/42/attempts/2");
    }

    #[test]
    fn without_a_workflow_there_is_no_provenance_and_the_error_says_what_lacks() {
        let error = predicate(&|name| workflow(name).filter(|_| name != "GITHUB_SHA")).expect_err("no commit").to_string();
        assert!(error.contains("GITHUB_SHA"), "{error}");
    }
}
