//! What the rest of a cluster would do: controllers and kubelets that are done at once, within the write itself.

use serde_json::{Value, json};

use super::kinds::{KINDS, Kind};
use super::status::Status;
use super::store::Store;
use super::write::{Stamp, keys_in};

/// The node that every pod runs on.
pub(crate) const NODE: &str = "node-0";

/// Fills in defaults and the status that a healthy cluster would report a moment later.
///
/// A pod runs, a Deployment is ready though it has no pods, a namespace is active.
pub(crate) fn settle(kind: &Kind, object: &mut Value, stamp: &Stamp) -> Result<(), Status> {
    match kind.plural {
        "namespaces" => default(object, "status", json!({ "phase": "Active" })),
        "pods" => settle_pod(kind, object, stamp)?,
        "deployments" => settle_replicas(object, stamp, true),
        "replicasets" => settle_replicas(object, stamp, false),
        "secrets" => settle_secret(object),
        "services" if object["spec"].is_object() => default(&mut object["spec"], "type", "ClusterIP".into()),
        _ => {}
    }
    Ok(())
}

/// Deletes everything in a namespace, finalizers or not.
pub(crate) fn empty_namespace(store: &mut Store, namespace: &str) {
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        for key in keys_in(store, kind, namespace) {
            store.remove(kind, &key);
        }
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.entry(field).or_insert(value);
    }
}

fn settle_pod(kind: &Kind, pod: &mut Value, stamp: &Stamp) -> Result<(), Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    if containers.is_empty() {
        return Err(Status::invalid(kind, &name, "spec.containers", "Required value"));
    }
    default(&mut pod["spec"], "nodeName", NODE.into());
    default(&mut pod["spec"], "restartPolicy", "Always".into());
    if pod["status"]["phase"].is_string() {
        return Ok(());
    }
    let now = stamp.time();
    let condition = |condition: &str| json!({ "type": condition, "status": "True", "lastTransitionTime": now });
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let statuses: Vec<_> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": { "running": { "startedAt": now } }, "lastState": {},
            })
        })
        .collect();
    pod["status"] = json!({
        "phase": "Running", "qosClass": "BestEffort", "startTime": now,
        "hostIP": "192.0.2.1", "podIP": "198.51.100.1", "podIPs": [{ "ip": "198.51.100.1" }],
        "conditions": conditions,
        "containerStatuses": statuses,
    });
    Ok(())
}

fn settle_replicas(object: &mut Value, stamp: &Stamp, deployment: bool) {
    if !object["spec"].is_object() {
        return;
    }
    default(&mut object["spec"], "replicas", 1.into());
    let replicas = object["spec"]["replicas"].clone();
    let mut status = json!({
        "observedGeneration": object["metadata"]["generation"],
        "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
    });
    if deployment {
        let since = object["status"]["conditions"][0]["lastTransitionTime"].as_str().map_or_else(|| stamp.time(), str::to_owned);
        let condition = |condition: &str, reason: &str| {
            json!({
                "type": condition, "status": "True", "reason": reason, "message": "every replica counts as ready",
                "lastTransitionTime": since, "lastUpdateTime": since,
            })
        };
        status["updatedReplicas"] = replicas;
        status["conditions"] =
            json!([condition("Available", "MinimumReplicasAvailable"), condition("Progressing", "NewReplicaSetAvailable")]);
    } else {
        status["fullyLabeledReplicas"] = replicas;
    }
    object["status"] = status;
}

/// `stringData` is written, never read back.
fn settle_secret(secret: &mut Value) {
    use base64::Engine;
    let Some(secret) = secret.as_object_mut() else { return };
    secret.entry("type").or_insert_with(|| "Opaque".into());
    let Some(Value::Object(plain)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    for (key, value) in plain {
        data[key] = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}
