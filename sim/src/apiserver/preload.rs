//! What is in the cluster before anybody came: namespaces, one node, a Deployment, pods.

use serde_json::{Value, json};

use super::cluster::NODE;
use super::write::Write;
use super::{ApiServer, kinds};

/// Fills an empty server.
pub(crate) fn preload(server: &ApiServer) {
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"].iter().chain(server.options().namespaces) {
        create(
            server,
            "namespaces",
            "",
            json!({ "metadata": { "name": namespace, "labels": { "kubernetes.io/metadata.name": namespace } } }),
        );
    }
    // Nodes and their status come from kubelets, so this one is put there whole.
    let now = server.stamp().time();
    server.put("nodes", "", NODE, node(&now));
    for namespace in ["default", "kube-system"] {
        create(server, "serviceaccounts", namespace, json!({ "metadata": { "name": "default" } }));
    }
    let service =
        json!({ "clusterIP": "10.96.0.1", "type": "ClusterIP", "ports": [{ "name": "https", "port": 443, "protocol": "TCP" }] });
    create(server, "services", "default", json!({ "metadata": { "name": "kubernetes" }, "spec": service }));
    let root_ca = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "" } });
    create(server, "configmaps", "default", root_ca);
    let web = json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": server.options().pods,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": pod_spec() },
        },
    });
    create(server, "deployments", "default", web);
    for index in 0..server.options().pods {
        let metadata = json!({ "name": format!("web-{index}"), "labels": { "app": "web" } });
        create(server, "pods", "default", json!({ "metadata": metadata, "spec": pod_spec() }));
    }
    for kind in kinds::extra(server.options().extra_kinds) {
        for index in 0..EXTRA_OBJECTS {
            create(server, kind.plural, "default", json!({ "metadata": { "name": format!("w-{index}") } }));
        }
    }
}

/// Objects of each extra kind.
const EXTRA_OBJECTS: usize = 3;

fn create(server: &ApiServer, plural: &str, namespace: &str, object: Value) {
    let kind = kinds::by_plural(plural).expect("preloaded kinds are rows of the table");
    let write = Write { kind, namespace: namespace.to_owned(), dry_run: false, stamp: server.stamp() };
    server.change(|store| write.create(store, object)).expect("preloaded objects are valid");
}

fn pod_spec() -> Value {
    json!({ "containers": [{ "name": "web", "image": "example.com/web:1" }] })
}

fn node(now: &str) -> Value {
    json!({
        "metadata": { "labels": { "kubernetes.io/hostname": NODE } },
        "spec": {},
        "status": {
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now, "lastHeartbeatTime": now,
            }],
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": NODE }],
            "capacity": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "nodeInfo": {
                "kubeletVersion": "v1.32.0-sim", "osImage": "sim", "operatingSystem": "linux", "architecture": "amd64", "kernelVersion": "",
                "containerRuntimeVersion": "", "kubeProxyVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    })
}
