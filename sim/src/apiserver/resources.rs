//! Requests for objects: `/api/v1/…` and `/apis/GROUP/VERSION/…`.

use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::form::Form;
use super::kinds::{self, Kind, Subresource};
use super::list::{self, Scope};
use super::misbehavior::Misbehavior;
use super::patch::Patch;
use super::query::Query;
use super::select::Selector;
use super::status::Status;
use super::write::{self, DeleteOptions, Write};
use super::{ApiServer, ExecutedWrite, exec, logs, port_forward, watch};

/// What a path names.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) part: Option<Subresource>,
}

impl Target {
    /// From the segments after group and version.
    pub(crate) fn parse(group: &str, version: &str, segments: &[&str]) -> Option<Self> {
        let (namespace, rest) = match segments {
            ["namespaces", namespace, plural, rest @ ..] if kinds::find(group, version, plural).is_some_and(|k| k.namespaced) => {
                (Some((*namespace).to_owned()), [&[*plural], rest].concat())
            }
            rest => (None, rest.to_vec()),
        };
        let (plural, name, part) = match rest.as_slice() {
            [plural] => (plural, None, None),
            [plural, name] if !name.is_empty() => (plural, Some((*name).to_owned()), None),
            [plural, name, part] if !name.is_empty() => (plural, Some((*name).to_owned()), Some(*part)),
            _ => return None,
        };
        let kind = kinds::find(group, version, plural)?;
        let part = match part {
            Some(part) => Some(*kind.subresources.iter().find(|subresource| subresource.name() == part)?),
            None => None,
        };
        // An object of a namespaced kind has no path without its namespace.
        (namespace.is_some() || name.is_none() || !kind.namespaced).then_some(Self { kind, namespace, name, part })
    }
}

/// Answers a request for `target`.
pub(crate) async fn answer(
    server: &ApiServer,
    target: Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if !server.serves(target.kind) {
        return Err(Status::no_such_path());
    }
    let method = request.method().clone();
    let Some(name) = target.name.clone() else {
        return match method {
            Method::GET | Method::HEAD => list_or_watch(server, &target, query, &request, None).await,
            Method::POST => create(server, &target, query, request).await,
            Method::DELETE => delete_collection(server, &target, query, request).await,
            _ => Err(Status::method_not_allowed()),
        };
    };
    match (target.part, method) {
        (None, Method::GET | Method::HEAD) if query.flag("watch") => {
            // The way of `kubectl get NAME --watch` before field selectors.
            list_or_watch(server, &target, query, &request, Some(&name)).await
        }
        (None | Some(Subresource::Status), Method::GET | Method::HEAD) => {
            let form = Form::negotiate(request.headers(), query.get("includeObject"))?;
            let object = find(server, &target, &name)?;
            Ok(body::json(StatusCode::OK, &form.one(target.kind, &object, server.now())))
        }
        (Some(Subresource::Scale), Method::GET | Method::HEAD) => {
            Ok(body::json(StatusCode::OK, &scale_of(&find(server, &target, &name)?)))
        }
        (None | Some(Subresource::Status | Subresource::Scale), Method::PUT | Method::PATCH) => {
            update(server, &target, &name, query, request).await
        }
        (None, Method::DELETE) => delete(server, &target, &name, query, request).await,
        (Some(Subresource::Log), Method::GET | Method::HEAD) => logs::answer(server, &find(server, &target, &name)?, query),
        (Some(Subresource::Exec | Subresource::Attach), Method::GET | Method::POST) => {
            let attach = target.part == Some(Subresource::Attach);
            exec::answer(server, &find(server, &target, &name)?, attach, query, request)
        }
        (Some(Subresource::PortForward), Method::GET | Method::POST) => {
            port_forward::answer(server, &find(server, &target, &name)?, query, request)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

async fn list_or_watch(
    server: &ApiServer,
    target: &Target,
    query: &Query,
    request: &Request<Incoming>,
    name: Option<&str>,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(request.headers(), query.get("includeObject"))?;
    let mut selector = Selector::parse(target.kind, query)?;
    if let Some(name) = name {
        selector.only_name(name);
    }
    let scope = Scope { kind: target.kind, namespace: target.namespace.clone(), selector };
    if query.flag("watch") && request.method() == Method::GET {
        return watch::start(server, scope, query, form);
    }
    let (now, gone) = (server.now(), server.misbehaviors().has(Misbehavior::Gone));
    let list = server.with_store(|store| list::list(store, &scope, query, form, now, gone))?;
    Ok(server.misbehaviors().delay_list(body::json(StatusCode::OK, &list)).await)
}

async fn create(
    server: &ApiServer,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if target.kind.namespaced && target.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    let form = Form::negotiate(request.headers(), query.get("includeObject"))?;
    let mut object = body::read_object(request).await?;
    server.misbehaviors().before_write(object["metadata"]["name"].as_str().unwrap_or_default()).await?;
    server.misbehaviors().bend(&mut object);
    let answer = created(server, &write(server, target, query.dry_run()?), object, form)?;
    server.misbehaviors().after_write().await.map(|()| answer)
}

fn created(server: &ApiServer, write: &Write, object: Value, form: Form) -> Result<Response<Body>, Status> {
    let made = server.change(|store| write.create(store, object))?;
    log(server, write, "create", &made);
    Ok(body::json(StatusCode::CREATED, &form.one(write.kind, &made, server.now())))
}

async fn update(
    server: &ApiServer,
    target: &Target,
    name: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(request.headers(), query.get("includeObject"))?;
    let put = request.method() == Method::PUT;
    let headers = request.headers().clone();
    let patch = if put {
        Patch::Replace(body::read_object(request).await?)
    } else {
        Patch::parse(&headers, &body::read(request.into_body()).await?)?
    };
    server.misbehaviors().before_write(name).await?;
    let write = write(server, target, query.dry_run()?);
    if let Patch::Replace(object) = &patch
        && target.kind.create_by_update
        && find(server, target, name).is_err()
    {
        return created(server, &write, object.clone(), form);
    }
    let scaled = target.part == Some(Subresource::Scale);
    let part = target.part.filter(|_| !scaled);
    let new = server.change(|store| {
        write.update(store, name, part, put && !scaled, |old| {
            if scaled {
                return with_scale(old, &patch.apply(&scale_of(old))?);
            }
            let mut new = patch.apply(old)?;
            server.misbehaviors().bend(&mut new);
            Ok(new)
        })
    })?;
    log(server, &write, if put { "update" } else { "patch" }, &new);
    server.misbehaviors().after_write().await?;
    let answer = if scaled { scale_of(&new) } else { form.one(target.kind, &new, server.now()) };
    Ok(body::json(StatusCode::OK, &answer))
}

async fn delete(
    server: &ApiServer,
    target: &Target,
    name: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let options = delete_options(query, request).await?;
    server.misbehaviors().before_write(name).await?;
    let write = write(server, target, options.dry_run);
    let (last, gone) = server.change(|store| write.delete(store, name, &options))?;
    log(server, &write, "delete", &last);
    server.misbehaviors().after_write().await?;
    let answer = if gone { write::deleted(target.kind, &last) } else { Value::clone(&last) };
    Ok(body::json(StatusCode::OK, &answer))
}

async fn delete_collection(
    server: &ApiServer,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if target.kind.namespaced && target.namespace.is_none() || target.kind.plural == "namespaces" {
        return Err(Status::method_not_allowed());
    }
    let selector = Selector::parse(target.kind, query)?;
    let options = delete_options(query, request).await?;
    server.misbehaviors().before_write("").await?;
    let scope = Scope { kind: target.kind, namespace: target.namespace.clone(), selector };
    let write = write(server, target, options.dry_run);
    let doomed = server.change(|store| {
        let doomed: Vec<_> = store.objects(scope.kind).into_values().filter(|object| scope.contains(object)).collect();
        for object in &doomed {
            write.delete(store, object["metadata"]["name"].as_str().unwrap_or_default(), &options)?;
        }
        Ok(doomed)
    })?;
    doomed.iter().for_each(|object| log(server, &write, "delete", object));
    server.misbehaviors().after_write().await?;
    let metadata = json!({ "resourceVersion": server.revision().to_string() });
    let list = Form::Object.list(target.kind, &metadata, doomed.iter().map(|object| &**object), server.now());
    Ok(body::json(StatusCode::OK, &list))
}

async fn delete_options(query: &Query, request: Request<Incoming>) -> Result<DeleteOptions, Status> {
    // A deletion without a body asks for nothing in particular.
    let body = if request.body().is_end_stream() { Value::Null } else { body::read_object(request).await? };
    DeleteOptions::parse(query, &body)
}

fn find(server: &ApiServer, target: &Target, name: &str) -> Result<Value, Status> {
    let namespace = target.namespace.clone().unwrap_or_default();
    let object = server.with_store(|store| store.get(target.kind, &(namespace, name.to_owned())).cloned());
    object.map(|object| Value::clone(&object)).ok_or_else(|| Status::not_found(target.kind, name))
}

fn write(server: &ApiServer, target: &Target, dry_run: bool) -> Write {
    let namespace = target.namespace.clone().unwrap_or_default();
    Write { kind: target.kind, namespace, dry_run, stamp: server.stamp() }
}

fn log(server: &ApiServer, write: &Write, verb: &'static str, object: &Value) {
    if !write.dry_run {
        server.log_write(ExecutedWrite {
            verb,
            resource: write.kind.resource(),
            namespace: write.namespace.clone(),
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        });
    }
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let terms: Vec<_> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    // Expressions would have to be written out too; without them the labels are the whole selector.
    let expressions = object["spec"]["selector"]["matchExpressions"].as_array().map_or(0, Vec::len);
    let selector = if expressions == 0 { Value::from(terms.join(",")) } else { Value::Null };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": object["spec"]["replicas"] },
        "status": { "replicas": object["status"]["replicas"], "selector": selector },
    })
}

/// `object` with the replicas, and the claim about the revision, of `scale`.
fn with_scale(object: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas =
        scale["spec"]["replicas"].as_u64().ok_or_else(|| Status::bad_request("spec.replicas is no number of replicas"))?;
    let mut new = object.clone();
    new["spec"]["replicas"] = replicas.into();
    new["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_objects_collections_and_parts() {
        let parse = |group: &str, path: &str| {
            let segments: Vec<_> = path.split('/').collect();
            let t = Target::parse(group, "v1", &segments)?;
            Some((t.kind.plural, t.namespace.unwrap_or_default(), t.name.unwrap_or_default(), t.part))
        };
        let ok = |plural, namespace: &str, name: &str, part| Some((plural, namespace.to_owned(), name.to_owned(), part));
        assert_eq!(parse("", "pods"), ok("pods", "", "", None));
        assert_eq!(parse("", "namespaces/a/pods/b/log"), ok("pods", "a", "b", Some(Subresource::Log)));
        assert_eq!(parse("", "namespaces/a"), ok("namespaces", "", "a", None));
        assert_eq!(parse("", "namespaces/a/status"), ok("namespaces", "", "a", Some(Subresource::Status)));
        assert_eq!(parse("apps", "namespaces/a/deployments"), ok("deployments", "a", "", None));
        for bad in
            ["pods/b", "namespaces/a/nodes", "namespaces/a/pods/", "namespaces//", "namespaces/a/pods/b/eviction", "guesses"]
        {
            assert_eq!(parse("", bad), None, "{bad}");
        }
        assert_eq!(parse("apps", "pods"), None);
    }
}
