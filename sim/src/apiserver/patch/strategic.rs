//! Strategic merge patch: lists of objects merge by a key, and `$` directives delete, replace and order.
//!
//! Which lists merge is part of the Kubernetes types (`patchStrategy` and `patchMergeKey` of the Go structs); [`LISTS`]
//! holds those of the kinds served here. A list that is not named there is replaced whole, as everywhere in Kubernetes.

use serde_json::{Map, Value};

use super::super::status::Status;

/// How a list merges.
#[derive(Clone, Copy)]
enum ListRule {
    /// Items are objects, told apart by this field.
    ByKey(&'static str),
    /// Items are scalars, each at most once.
    Set,
}

/// Field that holds the list, the fields it may stand under (none: any), how it merges.
const LISTS: &[(&str, &[&str], ListRule)] = &[
    ("conditions", &["status"], ListRule::ByKey("type")),
    ("addresses", &["status"], ListRule::ByKey("type")),
    ("podIPs", &["status"], ListRule::ByKey("ip")),
    ("hostIPs", &["status"], ListRule::ByKey("ip")),
    ("ownerReferences", &["metadata"], ListRule::ByKey("uid")),
    ("finalizers", &["metadata"], ListRule::Set),
    ("podCIDRs", &["spec"], ListRule::Set),
    ("secrets", &[""], ListRule::ByKey("name")),
    ("volumes", &["spec"], ListRule::ByKey("name")),
    ("containers", &["spec"], ListRule::ByKey("name")),
    ("initContainers", &["spec"], ListRule::ByKey("name")),
    ("ephemeralContainers", &["spec"], ListRule::ByKey("name")),
    ("imagePullSecrets", &["spec"], ListRule::ByKey("name")),
    ("hostAliases", &["spec"], ListRule::ByKey("ip")),
    ("topologySpreadConstraints", &["spec"], ListRule::ByKey("topologyKey")),
    ("schedulingGates", &["spec"], ListRule::ByKey("name")),
    ("resourceClaims", &["spec"], ListRule::ByKey("name")),
    ("ports", &["spec"], ListRule::ByKey("port")),
    ("ports", CONTAINERS, ListRule::ByKey("containerPort")),
    ("env", CONTAINERS, ListRule::ByKey("name")),
    ("volumeMounts", CONTAINERS, ListRule::ByKey("mountPath")),
    ("volumeDevices", CONTAINERS, ListRule::ByKey("devicePath")),
];

const CONTAINERS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

const ORDER: &str = "$setElementOrder/";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn apply(object: &Value, patch: Value) -> Result<Value, Status> {
    let (Value::Object(mut new), Value::Object(patch)) = (object.clone(), patch) else {
        return Err(Status::bad_request("a strategic merge patch is a JSON object"));
    };
    merge_object(&mut new, patch, "")?;
    Ok(Value::Object(new))
}

/// Merges `patch` into the object that stands under `field`.
fn merge_object(object: &mut Object, mut patch: Object, field: &str) -> Result<(), Status> {
    match patch.remove("$patch").as_ref().map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            *object = patch;
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        Some(other) => return Err(Status::bad_request(format!("unknown patch directive {other:?}"))),
    }
    if let Some(keys) = patch.remove("$retainKeys") {
        object.retain(|key, _| keys.as_array().is_some_and(|keys| keys.iter().any(|k| k == key)));
    }
    let mut orders = take_lists(&mut patch, ORDER)?;
    for (list, doomed) in take_lists(&mut patch, DELETE_SCALARS)? {
        if let Some(Value::Array(items)) = object.get_mut(&list) {
            items.retain(|item| !doomed.contains(item));
        }
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                object.remove(&name);
            }
            Value::Object(part) => {
                let slot = object.entry(&name).or_insert(Value::Null);
                merge_object(as_object(slot), part, &name)?;
            }
            Value::Array(part) => {
                let order = orders.iter().position(|(list, _)| *list == name).map(|at| orders.swap_remove(at).1);
                merge_list(object.entry(&name).or_insert(Value::Null), part, order, &name, field)?;
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                object.insert(name, value);
            }
        }
    }
    for (list, order) in orders {
        if let Some(slot @ Value::Array(_)) = object.get_mut(&list) {
            merge_list(slot, Vec::new(), Some(order), &list, field)?;
        }
    }
    Ok(())
}

/// Merges `patch` into the list `name` of the object that stands under `parent`.
fn merge_list(slot: &mut Value, patch: Vec<Value>, order: Option<Vec<Value>>, name: &str, parent: &str) -> Result<(), Status> {
    let rule = LISTS.iter().find(|(list, parents, _)| *list == name && parents.contains(&parent)).map(|(_, _, rule)| *rule);
    let old = match slot.take() {
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    };
    *slot = Value::Array(match rule {
        None if order.is_some() => {
            return Err(Status::bad_request(format!("the list {name} is replaced whole and has no order")));
        }
        None => patch,
        Some(ListRule::Set) => {
            let mut merged = old.clone();
            merged.extend(patch.iter().filter(|item| !old.contains(item)).cloned());
            arrange(merged, order.as_deref().unwrap_or(&patch), &old, None)
        }
        Some(ListRule::ByKey(key)) => merge_keyed(old, patch, order, key, name)?,
    });
    Ok(())
}

fn merge_keyed(
    old: Vec<Value>,
    patch: Vec<Value>,
    order: Option<Vec<Value>>,
    key: &'static str,
    name: &str,
) -> Result<Vec<Value>, Status> {
    if patch.iter().any(|item| item["$patch"] == "replace") {
        return Ok(patch.into_iter().filter(|item| item.get("$patch").is_none()).collect());
    }
    let mut merged = old.clone();
    let mut patched = Vec::new();
    for item in patch {
        let Value::Object(item) = item else {
            return Err(Status::bad_request(format!("an item of {name} in the patch is no object")));
        };
        let Some(id) = item.get(key).cloned() else {
            return Err(Status::bad_request(format!("an item of {name} in the patch does not contain the merge key: {key}")));
        };
        if item.get("$patch").is_some_and(|directive| directive == "delete") {
            merged.retain(|old| old[key] != id);
            continue;
        }
        patched.push(serde_json::json!({ key: id }));
        match merged.iter_mut().find(|old| old[key] == id) {
            Some(old) => merge_object(as_object(old), item, name)?,
            None => {
                let mut new = Object::new();
                merge_object(&mut new, item, name)?;
                merged.push(Value::Object(new));
            }
        }
    }
    Ok(arrange(merged, order.as_deref().unwrap_or(&patched), &old, Some(key)))
}

/// Items named in `order` come in that order; the others, which only the server has, keep their place among themselves
/// and stay before those that followed them in `old`. This is the order of `normalizeElementOrder` in apimachinery.
fn arrange(merged: Vec<Value>, order: &[Value], old: &[Value], key: Option<&str>) -> Vec<Value> {
    let id = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    let place = |list: &[Value], item: &Value| list.iter().position(|other| id(other) == id(item));
    let (mut named, mut server_only): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    server_only.sort_by_key(|item| place(old, item));

    let mut named = named.into_iter().peekable();
    let mut server_only = server_only.into_iter().peekable();
    let mut arranged = Vec::new();
    loop {
        let server_first = match (server_only.peek(), named.peek()) {
            (Some(left), Some(right)) => place(old, left).zip(place(old, right)).is_some_and(|(left, right)| left < right),
            (left, _) => left.is_some(),
        };
        let Some(next) = (if server_first { server_only.next() } else { named.next() }) else { return arranged };
        arranged.push(next);
    }
}

/// Removes the directives that start with `prefix`: list name and list.
fn take_lists(patch: &mut Object, prefix: &str) -> Result<Vec<(String, Vec<Value>)>, Status> {
    let names: Vec<_> = patch.keys().filter_map(|key| key.strip_prefix(prefix).map(str::to_owned)).collect();
    names
        .into_iter()
        .map(|name| match patch.remove(&format!("{prefix}{name}")) {
            Some(Value::Array(list)) => Ok((name, list)),
            _ => Err(Status::bad_request(format!("the directive {prefix}{name} is no list"))),
        })
        .collect()
}

/// The object in `slot`, put there if it is none.
fn as_object(slot: &mut Value) -> &mut Object {
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut().expect("made an object above")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_merge_by_name_and_their_ports_by_number() {
        let pod = json!({ "spec": { "containers": [
            { "name": "a", "image": "1", "ports": [{ "containerPort": 80 }], "args": ["x", "y"] },
            { "name": "b", "image": "1" },
        ] } });
        let patch = json!({ "spec": { "containers": [
            { "name": "a", "image": "2", "ports": [{ "containerPort": 81 }], "args": ["z"] },
        ] } });
        let result = json!({ "spec": { "containers": [
            { "name": "a", "image": "2", "ports": [{ "containerPort": 81 }, { "containerPort": 80 }], "args": ["z"] },
            { "name": "b", "image": "1" },
        ] } });
        assert_eq!(apply(&pod, patch), Ok(result));
    }

    #[test]
    fn directives_delete_replace_retain_and_order() {
        let object = || {
            json!({
                "metadata": { "finalizers": ["a", "b"] },
                "spec": {
                    "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } },
                    "containers": [{ "name": "a" }, { "name": "b" }, { "name": "injected" }],
                    "tolerations": [{ "key": "k" }],
                },
            })
        };
        let names = |value: &Value| -> Vec<String> {
            let containers = value["spec"]["containers"].as_array().cloned().unwrap_or_default();
            containers.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let patched = |patch: Value| apply(&object(), patch).expect("applies");

        let deleted = patched(json!({ "spec": { "containers": [{ "$patch": "delete", "name": "a" }] } }));
        assert_eq!(names(&deleted), ["b", "injected"]);
        let replaced = patched(json!({ "spec": { "containers": [{ "$patch": "replace" }, { "name": "z" }] } }));
        assert_eq!(names(&replaced), ["z"]);
        let ordered = patched(json!({ "spec": {
            "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }, { "name": "new" }],
            "containers": [{ "name": "new" }],
        } }));
        assert_eq!(names(&ordered), ["b", "a", "new", "injected"]);
        let only_order = patched(json!({ "spec": { "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }] } }));
        assert_eq!(names(&only_order), ["b", "a", "injected"]);
        let retained = patched(json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } }));
        assert_eq!(retained["spec"]["strategy"], json!({ "type": "Recreate" }));
        let scalars = patched(json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"] } }));
        assert_eq!(scalars["metadata"]["finalizers"], json!(["c", "b"]));
        let atomic = patched(json!({ "spec": { "tolerations": [{ "key": "other" }] } }));
        assert_eq!(atomic["spec"]["tolerations"], json!([{ "key": "other" }]));
        let emptied = patched(json!({ "spec": { "strategy": { "$patch": "delete" } } }));
        assert_eq!(emptied["spec"]["strategy"], json!({}));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let refusal = apply(&json!({}), json!({ "spec": { "containers": [{ "image": "1" }] } })).expect_err("refused");
        assert_eq!(refusal.code(), 400);
    }
}
