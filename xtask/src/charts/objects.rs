//! What must hold of every object that the charts render: pods that a restricted namespace takes, volumes that are there and
//! renewed, names that meet, flags that the programs have; and changes that restart nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{CHARTS, Problems, golden, helm};
use crate::workspace::root;

/// What changes in a living installation without a new pod, since the programs read it again: the golden case, and the change.
const RESTARTS_NOTHING: [(&str, &str, &str); 6] = [
    ("server", "minimal", "clusters[2].id=edge-3,clusters[2].token=token-of-edge-3"),
    ("server", "tls", "clusters[1].id=edge-2,clusters[1].token=another"),
    ("server", "tls", "revokedCerts=null"),
    ("server", "tls", "callers[0].name=another"),
    ("agent", "minimal", "token=another"),
    ("agent", "proxy-and-guard", "guard.policy.frozen=true"),
];

pub(crate) fn check() -> Result<Problems> {
    let mut problems = Problems::new();
    let flags: BTreeMap<&str, BTreeSet<String>> =
        CHARTS.into_iter().map(|chart| Ok((chart, flags(chart)?))).collect::<Result<_>>()?;
    for case in golden::cases()? {
        let objects = documents(&case.known()?)?;
        let found = objects.iter().flat_map(|object| of_pod(object, &flags[case.chart]));
        let found = found.chain(services(&objects)).chain(twice(&objects));
        problems.extend(found.map(|problem| format!("{}/{}: {problem}", case.chart, case.name)));
    }
    for (chart, case, change) in RESTARTS_NOTHING {
        let values = root().join("charts/golden").join(chart).join(format!("{case}.values.yaml"));
        let before: [OsString; 2] = ["--values".into(), values.into()];
        let after = [&before[..], &["--set".into(), change.into()]].concat();
        let (before, after) = (helm::template(chart, &before)?, helm::template(chart, &after)?);
        match (before, after) {
            (Ok(before), Ok(after)) if before == after => problems.push(format!("{chart}/{case}: {change} changes nothing")),
            (Ok(before), Ok(after)) if pods(&before)? == pods(&after)? => {}
            (Ok(_), Ok(_)) => problems.push(format!("{chart}/{case}: {change} makes a new pod")),
            (Err(error), _) | (_, Err(error)) => problems.push(format!("{chart}/{case}: {change}: {error}")),
        }
    }
    Ok(problems)
}

/// The objects of a rendering.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("a rendering is no YAML")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

/// Kind and name.
pub(crate) fn label(object: &Value) -> String {
    format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn pods(text: &str) -> Result<Vec<Value>> {
    let objects = documents(text)?;
    Ok(objects.into_iter().filter(|object| object["kind"] == "Deployment").map(|mut object| object["spec"].take()).collect())
}

/// The flags of a program, as its reference has them.
fn flags(chart: &str) -> Result<BTreeSet<String>> {
    let file = root().join(chart).join("REFERENCE.md");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let named = text.lines().filter_map(|line| line.strip_prefix("| `--"));
    Ok(named.filter_map(|line| Some(line.split(['`', ' ']).next()?.to_owned())).collect())
}

fn of_pod(object: &Value, flags: &BTreeSet<String>) -> Problems {
    let template = &object["spec"]["template"];
    if template.is_null() {
        return Problems::new();
    }
    let pod = &template["spec"];
    let mut problems = Problems::new();
    if !selects(&object["spec"]["selector"]["matchLabels"], &template["metadata"]["labels"]) {
        problems.push("does not select its own pods".to_owned());
    }
    let security = &pod["securityContext"];
    if security["runAsNonRoot"] != true || security["seccompProfile"]["type"] != "RuntimeDefault" {
        problems.push("a restricted namespace does not take the pod".to_owned());
    }
    if pod["automountServiceAccountToken"] != false {
        problems.push("mounts a token that does not expire".to_owned());
    }
    let volumes: BTreeSet<&str> = list(&pod["volumes"]).map(|volume| word(&volume["name"])).collect();
    let mut mounted = BTreeSet::new();
    for container in list(&pod["initContainers"]).chain(list(&pod["containers"])) {
        mounted.extend(list(&container["volumeMounts"]).map(|mount| word(&mount["name"])));
        problems.extend(of_container(container, flags));
    }
    let apart = volumes
        .symmetric_difference(&mounted)
        .map(|name| format!("the volume {name} is mounted and missing, or there and not mounted"));
    problems.extend(apart);
    problems.into_iter().map(|problem| format!("{}: {problem}", label(object))).collect()
}

fn of_container(container: &Value, flags: &BTreeSet<String>) -> Problems {
    let mut problems = Problems::new();
    let security = &container["securityContext"];
    let drops = list(&security["capabilities"]["drop"]).any(|name| name == "ALL");
    if security["allowPrivilegeEscalation"] != false || security["readOnlyRootFilesystem"] != true || !drops {
        problems.push("a restricted namespace does not take the container".to_owned());
    }
    if list(&container["volumeMounts"]).any(|mount| !mount["subPath"].is_null()) {
        problems.push("a mount with subPath is never renewed".to_owned());
    }
    let ports: Vec<&str> = list(&container["ports"]).map(|port| word(&port["name"])).collect();
    for probe in ["livenessProbe", "readinessProbe"].map(|name| &container[name]).into_iter().filter(|probe| !probe.is_null()) {
        if !ports.contains(&word(&probe["httpGet"]["port"])) {
            problems.push("a probe asks at no port of the container".to_owned());
        }
    }
    for arg in list(&container["args"]).map(word).filter_map(|arg| arg.strip_prefix("--")) {
        let flag = arg.split('=').next().unwrap_or_default();
        if !flags.contains(flag) {
            problems.push(format!("the program has no flag --{flag}"));
        }
    }
    problems
}

/// Services lead to ports that a pod has.
fn services(objects: &[Value]) -> Problems {
    let mut problems = Problems::new();
    let templates: Vec<&Value> =
        objects.iter().filter(|object| object["kind"] == "Deployment").map(|object| &object["spec"]["template"]).collect();
    for service in objects.iter().filter(|object| object["kind"] == "Service") {
        let behind: Vec<_> =
            templates.iter().filter(|template| selects(&service["spec"]["selector"], &template["metadata"]["labels"])).collect();
        let ports: Vec<&str> = behind
            .iter()
            .flat_map(|template| list(&template["spec"]["containers"]))
            .flat_map(|container| list(&container["ports"]))
            .map(|port| word(&port["name"]))
            .collect();
        for port in list(&service["spec"]["ports"]).map(|port| word(&port["targetPort"])) {
            if !ports.contains(&port) {
                problems.push(format!("{}: leads to {port}, which no pod has", label(service)));
            }
        }
    }
    problems
}

/// No object is there twice.
fn twice(objects: &[Value]) -> Problems {
    let mut seen = BTreeSet::new();
    let names = objects.iter().map(|object| format!("{} in {}", label(object), word(&object["metadata"]["namespace"])));
    names.filter(|name| !seen.insert(name.clone())).map(|name| format!("{name} is there twice")).collect()
}

/// Whether `selector` is not empty and all of it stands in `labels`.
fn selects(selector: &Value, labels: &Value) -> bool {
    // A Job makes its own.
    selector.is_null()
        || selector.as_object().is_some_and(|all| !all.is_empty() && all.iter().all(|(key, value)| labels[key] == *value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Deployment with nothing against it.
    fn fine() -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "a" }, "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a", "more": "b" } }, "spec": {
                "automountServiceAccountToken": false,
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "volumes": [{ "name": "tls" }],
                "containers": [{
                    "args": ["doctor", "--drain=30s"],
                    "ports": [{ "name": "health" }],
                    "readinessProbe": { "httpGet": { "port": "health" } },
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                    },
                    "volumeMounts": [{ "name": "tls" }],
                }],
            } },
        } })
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_pod_is_found() {
        let flags = BTreeSet::from(["drain".to_owned()]);
        assert_eq!(of_pod(&fine(), &flags), Problems::new());
        let slips = [
            ("/spec/selector/matchLabels/app", json!("b")),
            ("/spec/template/spec/automountServiceAccountToken", json!(true)),
            ("/spec/template/spec/securityContext/runAsNonRoot", json!(false)),
            ("/spec/template/spec/containers/0/securityContext/capabilities/drop", json!([])),
            ("/spec/template/spec/containers/0/volumeMounts/0", json!({ "name": "tls", "subPath": "a" })),
            ("/spec/template/spec/containers/0/args/1", json!("--drian=30s")),
            ("/spec/template/spec/containers/0/readinessProbe/httpGet/port", json!("ops")),
        ];
        for (path, value) in slips {
            let mut pod = fine();
            *pod.pointer_mut(path).expect("the path is there") = value;
            assert_eq!(of_pod(&pod, &flags).len(), 1, "{path}");
        }
    }

    #[test]
    fn a_volume_without_mount_and_a_mount_without_volume_are_found() {
        let mut pod = fine();
        pod["spec"]["template"]["spec"]["volumes"][0]["name"] = "lts".into();
        assert_eq!(of_pod(&pod, &BTreeSet::from(["drain".to_owned()])).len(), 2);
    }

    #[test]
    fn a_service_that_leads_nowhere_and_an_object_that_is_there_twice_are_found() {
        let service = |port: &str| {
            json!({ "kind": "Service", "metadata": { "name": "a" }, "spec": {
                "selector": { "app": "a" }, "ports": [{ "targetPort": port }],
            } })
        };
        assert!(services(&[fine(), service("health")]).is_empty());
        assert_eq!(services(&[fine(), service("inside")]).len(), 1);
        assert_eq!(twice(&[fine(), fine()]).len(), 1);
    }
}
