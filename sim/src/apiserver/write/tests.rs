//! What a write may do, and what it must refuse.

use serde_json::json;

use super::super::kinds;
use super::*;

#[test]
fn a_created_object_gets_identity_time_and_revision() {
    let mut store = store();
    let made =
        write("configmaps").create(&mut store, json!({ "metadata": { "generateName": "web-" }, "data": {} })).expect("created");
    assert!(made["metadata"]["name"].as_str().is_some_and(|name| name.len() == "web-".len() + 5), "{made}");
    assert_eq!(made["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z");
    assert_eq!(made["metadata"]["uid"], "00000000-0000-4001-8000-000000000002");
    assert_eq!(made["metadata"]["resourceVersion"], store.revision().to_string());
    assert_eq!(made["kind"], "ConfigMap");
}

#[test]
fn a_second_object_of_that_name_is_refused() {
    let mut store = store();
    let object = json!({ "metadata": { "name": "a" } });
    write("configmaps").create(&mut store, object.clone()).expect("created");
    assert_eq!(code(write("configmaps").create(&mut store, object)), 409);
}

#[test]
fn what_is_no_object_of_the_kind_is_refused() {
    let mut store = store();
    for (object, wanted) in [
        (json!([]), 400),
        (json!({ "kind": "Pod", "metadata": { "name": "a" } }), 400),
        (json!({ "metadata": { "name": "a", "namespace": "other" } }), 400),
        (json!({ "metadata": { "name": "a", "resourceVersion": "7" } }), 400),
        (json!({ "metadata": {} }), 422),
        (json!({ "metadata": { "name": "A_b" } }), 422),
    ] {
        assert_eq!(code(write("configmaps").create(&mut store, object.clone())), wanted, "{object}");
    }
    let homeless = Write { namespace: "nowhere".to_owned(), ..write("configmaps") };
    assert_eq!(code(homeless.create(&mut store, json!({ "metadata": { "name": "a" } }))), 404);
}

#[test]
fn a_stale_revision_is_a_conflict_and_the_current_one_is_not() {
    let mut store = store();
    let made = write("configmaps").create(&mut store, json!({ "metadata": { "name": "a" } })).expect("created");
    let with = |revision: &Value, data: &str| json!({ "metadata": { "resourceVersion": revision }, "data": { "k": data } });
    let put = |store: &mut Store, body: Value| write("configmaps").update(store, "a", None, true, |_| Ok(body));

    put(&mut store, with(&made["metadata"]["resourceVersion"], "1")).expect("current revision");
    assert_eq!(code(put(&mut store, with(&made["metadata"]["resourceVersion"], "2"))), 409);
    put(&mut store, with(&Value::Null, "3")).expect("no revision means whatever is there");
}

#[test]
fn a_lease_cannot_be_replaced_without_its_revision() {
    let mut store = store();
    write("leases").create(&mut store, json!({ "metadata": { "name": "a" } })).expect("created");
    assert_eq!(code(write("leases").update(&mut store, "a", None, true, |_| Ok(json!({ "spec": {} })))), 422);
}

#[test]
fn a_write_without_a_change_makes_no_revision() {
    let mut store = store();
    write("configmaps").create(&mut store, json!({ "metadata": { "name": "a" } })).expect("created");
    let before = store.revision();
    write("configmaps").update(&mut store, "a", None, false, |old| Ok(old.clone())).expect("no change");
    assert_eq!(store.revision(), before);
}

#[test]
fn only_a_change_of_spec_counts_the_generation_up() {
    let mut store = store();
    let deployment = json!({ "metadata": { "name": "a" }, "spec": { "replicas": 2 } });
    let made = write("deployments").create(&mut store, deployment).expect("created");
    assert_eq!((&made["metadata"]["generation"], &made["status"]["readyReplicas"]), (&json!(1), &json!(2)));

    let change = |store: &mut Store, pointer: &'static str, value: Value| {
        write("deployments").update(store, "a", None, false, |old| {
            let mut new = old.clone();
            new[pointer.split('/').next().expect("a field")][pointer.split('/').nth(1).expect("a field")] = value;
            Ok(new)
        })
    };
    let labelled = change(&mut store, "metadata/labels", json!({ "x": "y" })).expect("labelled");
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = change(&mut store, "spec/replicas", json!(5)).expect("scaled");
    assert_eq!((&scaled["metadata"]["generation"], &scaled["status"]["observedGeneration"]), (&json!(2), &json!(2)));
    let lied = change(&mut store, "status/readyReplicas", json!(99)).expect("ignored");
    assert_eq!(lied["status"]["readyReplicas"], 5);
}

#[test]
fn a_status_write_changes_nothing_else() {
    let mut store = store();
    let pod = json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    write("pods").create(&mut store, pod).expect("created");
    let body = json!({ "spec": { "nodeName": "elsewhere" }, "status": { "phase": "Failed" } });
    let new = write("pods").update(&mut store, "a", Some(Subresource::Status), true, |_| Ok(body)).expect("updated");
    assert_eq!((&new["status"]["phase"], &new["spec"]["nodeName"]), (&json!("Failed"), &json!(cluster::NODE)));
}

#[test]
fn an_object_with_finalizers_stays_until_the_last_is_removed() {
    let mut store = store();
    let object = json!({ "metadata": { "name": "a", "finalizers": ["example.com/hold"] } });
    write("configmaps").create(&mut store, object).expect("created");
    let (marked, gone) = write("configmaps").delete(&mut store, "a", &DeleteOptions::default()).expect("marked");
    assert!(!gone && marked["metadata"]["deletionTimestamp"].is_string());
    write("configmaps")
        .update(&mut store, "a", None, false, |old| {
            let mut new = old.clone();
            new["metadata"]["finalizers"] = json!([]);
            Ok(new)
        })
        .expect("released");
    assert_eq!(code(write("configmaps").delete(&mut store, "a", &DeleteOptions::default())), 404);
}

#[test]
fn a_deletion_of_another_object_of_that_name_is_a_conflict() {
    let mut store = store();
    write("configmaps").create(&mut store, json!({ "metadata": { "name": "a" } })).expect("created");
    let other = DeleteOptions { uid: Some("another".to_owned()), ..DeleteOptions::default() };
    assert_eq!(code(write("configmaps").delete(&mut store, "a", &other)), 409);
}

#[test]
fn a_dry_run_answers_and_keeps_nothing() {
    let mut store = store();
    let dry = Write { dry_run: true, ..write("configmaps") };
    dry.create(&mut store, json!({ "metadata": { "name": "a" } })).expect("would work");
    assert_eq!(code(write("configmaps").delete(&mut store, "a", &DeleteOptions::default())), 404);
}

#[test]
fn a_deleted_namespace_takes_its_objects_along() {
    let mut store = store();
    write("configmaps").create(&mut store, json!({ "metadata": { "name": "a" } })).expect("created");
    let namespaces = Write { namespace: String::new(), ..write("namespaces") };
    namespaces.delete(&mut store, "default", &DeleteOptions::default()).expect("deleted");
    assert!(store.objects(kinds::by_plural("configmaps").expect("a row")).is_empty());
}

fn store() -> Store {
    let mut store = Store::new(100);
    let namespaces = Write { namespace: String::new(), ..write("namespaces") };
    namespaces.create(&mut store, json!({ "metadata": { "name": "default" } })).expect("created");
    store
}

fn write(plural: &str) -> Write {
    Write {
        kind: kinds::by_plural(plural).expect("a row"),
        namespace: "default".to_owned(),
        dry_run: false,
        stamp: Stamp { now: Timestamp::UNIX_EPOCH, chance: [1, 2] },
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> u16 {
    result.expect_err("a refusal").code()
}
