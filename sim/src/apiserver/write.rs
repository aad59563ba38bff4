//! Create, update and delete: the preconditions of the Kubernetes API conventions, then one change of the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cluster;
use super::kinds::{Kind, Subresource};
use super::query::Query;
use super::status::Status;
use super::store::{ObjectKey, Store};

/// What a write takes from the outside: the time of day and chance.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) now: Timestamp,
    pub(crate) chance: [u64; 2],
}

/// Which object, and how.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) kind: &'static Kind,
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: String,
    pub(crate) dry_run: bool,
    pub(crate) stamp: Stamp,
}

/// What `DeleteOptions` may ask for; grace, propagation and the rest are accepted, deletion is at once in any case.
#[derive(Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl Stamp {
    /// Gives `object` its type, name and place, and an identity if it has none.
    pub(crate) fn identify(&self, kind: &Kind, namespace: &str, name: &str, object: &mut Value) {
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.into();
        let metadata = &mut object["metadata"];
        metadata["name"] = name.into();
        if kind.namespaced {
            metadata["namespace"] = namespace.into();
        }
        for (field, value) in [("uid", self.uid()), ("creationTimestamp", self.time())] {
            if metadata[field].is_null() {
                metadata[field] = value.into();
            }
        }
    }

    /// RFC 3339 with seconds, as `metav1.Time` prints.
    pub(crate) fn time(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// A version 4 UUID (RFC 9562 section 5.4).
    fn uid(&self) -> String {
        let [a, b] = self.chance;
        let (time_low, time_mid, time_high) = (a >> 32, (a >> 16) & 0xffff, a & 0x0fff);
        let (variant, node) = (0x8000 | ((b >> 48) & 0x3fff), b & 0xffff_ffff_ffff);
        format!("{time_low:08x}-{time_mid:04x}-4{time_high:03x}-{variant:04x}-{node:012x}")
    }

    /// Five characters for `generateName`, from the alphabet of Kubernetes, which spells no words.
    fn suffix(&self) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let digit = |at: u32| char::from(ALPHABET[(self.chance[1] / 27u64.pow(at) % 27) as usize]);
        (0..5).map(digit).collect()
    }
}

impl DeleteOptions {
    /// From the query and the body, which is null if there is none.
    pub(crate) fn parse(query: &Query, body: &Value) -> Result<Self, Status> {
        let text = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|value| value == "All"));
        Ok(Self { dry_run: query.dry_run()? || dry_run, uid: text("uid"), resource_version: text("resourceVersion") })
    }
}

impl Write {
    /// Creates `object`.
    pub(crate) fn create(&self, store: &mut Store, mut object: Value) -> Result<Arc<Value>, Status> {
        self.check_type(&mut object)?;
        let name = self.name_of_new(&mut object)?;
        let key = (self.namespace.clone(), name.clone());
        if self.kind.namespaced {
            self.check_namespace(store)?;
        }
        if store.get(self.kind, &key).is_some() {
            return Err(Status::already_exists(self.kind, &name));
        }
        if !object["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let metadata = metadata(&mut object)?;
        metadata.remove("managedFields");
        for field in ["uid", "creationTimestamp", "deletionTimestamp"] {
            metadata.remove(field);
        }
        if self.kind.generations {
            metadata.insert("generation".to_owned(), 1.into());
        }
        if self.kind.has(Subresource::Status)
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        self.stamp.identify(self.kind, &self.namespace, &name, &mut object);
        cluster::settle(self.kind, &mut object, &self.stamp)?;
        Ok(self.commit(store, key, object))
    }

    /// Replaces an object by what `change` makes of it: the body of a PUT, or a patch applied.
    ///
    /// `whole` says that the caller sent the whole object, so that an absent revision means "whatever is there".
    pub(crate) fn update(
        &self,
        store: &mut Store,
        name: &str,
        part: Option<Subresource>,
        whole: bool,
        change: impl FnOnce(&Value) -> Result<Value, Status>,
    ) -> Result<Arc<Value>, Status> {
        let key = (self.namespace.clone(), name.to_owned());
        let old = store.get(self.kind, &key).cloned().ok_or_else(|| Status::not_found(self.kind, name))?;
        let mut new = change(&old)?;
        self.check_type(&mut new)?;
        self.check_identity(&old, &mut new, name)?;
        if whole && !self.kind.unconditional_update && revision_of(&new).is_empty() {
            let why = "Invalid value: 0x0: must be specified for an update";
            return Err(Status::invalid(self.kind, name, "metadata.resourceVersion", why));
        }
        if !revision_of(&new).is_empty() && revision_of(&new) != revision_of(&old) {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Status::conflict(self.kind, name, why));
        }
        let mut new = self.only(part, &old, new);
        keep_system_metadata(&old, &mut new)?;
        if part != Some(Subresource::Status) {
            if self.kind.generations && old["spec"] != new["spec"] {
                let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
                new["metadata"]["generation"] = generation.into();
            }
            cluster::settle(self.kind, &mut new, &self.stamp)?;
        }
        if new == *old {
            // A write without a change is no write: no revision, no watch event.
            return Ok(old);
        }
        if is_deleted_now(&new) && !self.dry_run {
            return Ok(store.remove(self.kind, &key).unwrap_or(old));
        }
        Ok(self.commit(store, key, new))
    }

    /// Deletes an object, or marks it as being deleted while it has finalizers. The object, and whether it is gone.
    pub(crate) fn delete(&self, store: &mut Store, name: &str, options: &DeleteOptions) -> Result<(Arc<Value>, bool), Status> {
        let key = (self.namespace.clone(), name.to_owned());
        let old = store.get(self.kind, &key).cloned().ok_or_else(|| Status::not_found(self.kind, name))?;
        let holds = |wanted: &Option<String>, field: &str| {
            wanted.as_deref().is_none_or(|wanted| old["metadata"][field].as_str() == Some(wanted))
        };
        if !holds(&options.uid, "uid") || !holds(&options.resource_version, "resourceVersion") {
            return Err(Status::conflict(self.kind, name, "the preconditions of the deletion do not hold"));
        }
        let has_finalizers = old["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if has_finalizers {
            if old["metadata"]["deletionTimestamp"].is_string() {
                return Ok((old, false));
            }
            let mut new = Value::clone(&old);
            new["metadata"]["deletionTimestamp"] = self.stamp.time().into();
            new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            if self.kind.generations {
                new["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
            }
            return Ok((self.commit(store, key, new), false));
        }
        if self.dry_run {
            return Ok((old, true));
        }
        if self.kind.plural == "namespaces" {
            cluster::empty_namespace(store, name);
        }
        Ok((store.remove(self.kind, &key).unwrap_or(old), true))
    }

    fn commit(&self, store: &mut Store, key: ObjectKey, object: Value) -> Arc<Value> {
        if self.dry_run { Arc::new(object) } else { store.put(self.kind, key, object) }
    }

    fn check_type(&self, object: &mut Value) -> Result<(), Status> {
        let Some(fields) = object.as_object_mut() else {
            return Err(Status::bad_request("the body is no JSON object"));
        };
        for (field, wanted) in [("apiVersion", self.kind.api_version()), ("kind", self.kind.kind.to_owned())] {
            match fields.get(field).and_then(Value::as_str).unwrap_or_default() {
                "" => {
                    fields.insert(field.to_owned(), wanted.into());
                }
                sent if sent == wanted => {}
                sent => {
                    let message = format!("{field} in the data ({sent}) does not match the expected {field} ({wanted})");
                    return Err(Status::bad_request(message));
                }
            }
        }
        Ok(())
    }

    fn name_of_new(&self, object: &mut Value) -> Result<String, Status> {
        let metadata = metadata(object)?;
        if let Some(namespace) = metadata.get("namespace").and_then(Value::as_str)
            && !namespace.is_empty()
            && namespace != self.namespace
        {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(message));
        }
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        let name = match (text("name"), text("generateName")) {
            ("", "") => {
                let why = "Required value: name or generateName is required";
                return Err(Status::invalid(self.kind, "", "metadata.name", why));
            }
            ("", prefix) => format!("{prefix}{}", self.stamp.suffix()),
            (name, _) => name.to_owned(),
        };
        if is_dns_subdomain(&name) {
            Ok(name)
        } else {
            let why = format!("Invalid value: {name:?}: a lowercase RFC 1123 subdomain is needed");
            Err(Status::invalid(self.kind, &name, "metadata.name", &why))
        }
    }

    fn check_namespace(&self, store: &Store) -> Result<(), Status> {
        let Some(namespaces) = super::kinds::by_plural("namespaces") else { return Ok(()) };
        match store.get(namespaces, &(String::new(), self.namespace.clone())) {
            Some(_) => Ok(()),
            None => Err(Status::not_found(namespaces, &self.namespace)),
        }
    }

    /// An update may leave name, namespace and uid out, but not change them.
    fn check_identity(&self, old: &Value, new: &mut Value, name: &str) -> Result<(), Status> {
        let new = metadata(new)?;
        for field in ["name", "namespace", "uid"] {
            let was = old["metadata"][field].as_str().unwrap_or_default();
            let sent = new.get(field).and_then(Value::as_str).unwrap_or_default();
            if sent.is_empty() || sent == was {
                continue;
            }
            if field == "uid" {
                let why = format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {was}");
                return Err(Status::conflict(self.kind, name, &why));
            }
            let message = format!("the {field} of the object ({sent}) does not match the {field} on the URL ({was})");
            return Err(Status::bad_request(message));
        }
        Ok(())
    }

    /// A write of a part leaves the rest as it was, and a write of the whole leaves `status` as it was.
    fn only(&self, part: Option<Subresource>, old: &Value, new: Value) -> Value {
        let status_only = part == Some(Subresource::Status);
        if !status_only && !self.kind.has(Subresource::Status) {
            return new;
        }
        let (mut base, donor) = if status_only { (old.clone(), new) } else { (new, old.clone()) };
        if let Some(base) = base.as_object_mut() {
            match donor.get("status") {
                Some(status) => base.insert("status".to_owned(), status.clone()),
                None => base.remove("status"),
            };
        }
        base
    }
}

/// The answer to a deletion that is done.
pub(crate) fn deleted(kind: &Kind, object: &Value) -> Value {
    let mut details = json!({ "name": object["metadata"]["name"], "kind": kind.plural, "uid": object["metadata"]["uid"] });
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

/// Names of objects that were in a namespace.
pub(crate) fn keys_in(store: &Store, kind: &Kind, namespace: &str) -> BTreeSet<ObjectKey> {
    store.objects(kind).into_keys().filter(|(n, _)| n == namespace).collect()
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let object = object.as_object_mut().ok_or_else(|| Status::bad_request("the body is no JSON object"))?;
    object
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("metadata is no JSON object"))
}

fn revision_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// These belong to the server; what a caller sends in them is ignored.
fn keep_system_metadata(old: &Value, new: &mut Value) -> Result<(), Status> {
    let new = metadata(new)?;
    new.remove("managedFields");
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match old["metadata"].get(field) {
            Some(value) => new.insert(field.to_owned(), value.clone()),
            None => new.remove(field),
        };
    }
    Ok(())
}

fn is_deleted_now(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
    object["metadata"]["deletionTimestamp"].is_string() && finalizers == 0
}

/// RFC 1123 labels joined by dots, 253 characters at most.
fn is_dns_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
