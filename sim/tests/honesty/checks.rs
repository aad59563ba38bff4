//! The checks, by name.

use anyhow::{Context, Result, ensure};
use host::BoxFuture;
use serde_json::{Value, json};

use crate::far::{Far, whole};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What the checks make carries this label.
const OURS: &str = "labelSelector=made-by%3Dhonesty";

/// Requests until a GOAWAY has come almost surely: one comes after each with a chance of 1 in 50.
const UNTIL_GOAWAY: usize = 1000;

pub(crate) type Check = for<'a> fn(&'a Far) -> BoxFuture<'a, Result<()>>;

pub(crate) const CHECKS: [(&str, Check); 25] = [
    ("the version is told", |far| Box::pin(version(far))),
    ("a list has a type and a version", |far| Box::pin(list(far))),
    ("pages are one list", |far| Box::pin(pages(far))),
    ("a watch tells what happens after its version", |far| Box::pin(watch_from_version(far))),
    ("a watch without a version begins with what is there", |far| Box::pin(watch_from_now(far))),
    ("a watch with a time limit gets a bookmark and ends cleanly", |far| Box::pin(bookmark(far))),
    ("a watch from a forgotten version is told 410 in its stream", |far| Box::pin(watch_gone(far))),
    ("a page of a forgotten version is 410 and says how to go on", |far| Box::pin(page_gone(far))),
    ("a malformed continue token is 400", |far| Box::pin(page_malformed(far))),
    ("a version of the future is 504 with a hint", |far| Box::pin(future_version(far))),
    ("an object is made once", |far| Box::pin(create(far))),
    ("a name can be left to the server", |far| Box::pin(generate_name(far))),
    ("a dry run makes nothing", |far| Box::pin(dry_run(far))),
    ("an update of an older version is a conflict", |far| Box::pin(conflict(far))),
    ("patches are of three types, others are 415", |far| Box::pin(patches(far))),
    ("a malformed patch changes nothing", |far| Box::pin(malformed_patches(far))),
    ("what is deleted is gone", |far| Box::pin(delete(far))),
    ("bodies that are none are refused", |far| Box::pin(bad_bodies(far))),
    ("unknown kinds are 404", |far| Box::pin(unknown(far))),
    ("a method that a collection has not is 405", |far| Box::pin(method(far))),
    ("a wrong token is 401", |far| Box::pin(unauthorized(far))),
    ("a table has a cell for each column", |far| Box::pin(table(far))),
    ("discovery tells kinds and verbs", |far| Box::pin(discovery(far))),
    ("too much at once is 429 in plain text with a hint", |far| Box::pin(throttled(far))),
    ("a GOAWAY loses no request", |far| Box::pin(goaway(far))),
];

/// Removes what checks have made.
pub(crate) async fn clean_up(far: &Far) -> Result<()> {
    far.send("DELETE", &format!("{CONFIG_MAPS}?{OURS}"), &json!({})).await?.expect(200).map(|_| ())
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "made-by": "honesty" } }, "data": { "k": "1" } })
}

async fn make(far: &Far, name: &str) -> Result<Value> {
    far.send("POST", CONFIG_MAPS, &config_map(name)).await?.expect(201)
}

/// One more, for a revision more.
pub(crate) async fn make_any(far: &Far) -> Result<Value> {
    let mut object = config_map("");
    object["metadata"]["generateName"] = json!("honesty-any-");
    far.send("POST", CONFIG_MAPS, &object).await?.expect(201)
}

async fn version(far: &Far) -> Result<()> {
    let reply = far.get("/version").await?;
    let version = reply.expect(200)?;
    for field in ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"] {
        ensure!(version[field].is_string(), "no {field} in {version}");
    }
    ensure!(reply.header("content-type") == "application/json", "{:?}", reply.headers);
    ensure!(reply.header("content-length") == reply.text.len().to_string(), "{:?}", reply.headers);
    ensure!(reply.header("cache-control") == "no-cache, private", "{:?}", reply.headers);
    Ok(())
}

async fn list(far: &Far) -> Result<()> {
    make(far, "honesty-list").await?;
    let list = far.get(&format!("{CONFIG_MAPS}?{OURS}")).await?.expect(200)?;
    ensure!((&list["kind"], &list["apiVersion"]) == (&json!("ConfigMapList"), &json!("v1")), "{list}");
    list["metadata"]["resourceVersion"].as_str().context("no version")?.parse::<u64>()?;
    let item = &list["items"][0];
    ensure!(item["kind"].is_null() && item["metadata"]["name"].is_string(), "{item}");
    Ok(())
}

async fn pages(far: &Far) -> Result<()> {
    for n in 0..3 {
        make(far, &format!("honesty-page-{n}")).await?;
    }
    let first = far.get(&format!("{CONFIG_MAPS}?limit=1")).await?.expect(200)?;
    ensure!(first["metadata"]["remainingItemCount"].as_u64().is_some_and(|n| n >= 2), "{}", first["metadata"]);
    make(far, "honesty-page-late").await?;
    let token = first["metadata"]["continue"].as_str().context("no token")?;
    let rest = far.get(&format!("{CONFIG_MAPS}?limit=500&continue={token}")).await?.expect(200)?;
    ensure!(rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "another version");
    ensure!(rest["metadata"]["continue"].is_null() && rest["metadata"]["remainingItemCount"].is_null(), "{}", rest["metadata"]);
    ensure!(!rest.to_string().contains("honesty-page-late"), "a page of another moment");
    Ok(())
}

async fn watch_from_version(far: &Far) -> Result<()> {
    let list = far.get(CONFIG_MAPS).await?.expect(200)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
    let mut watch = far.lines(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}&{OURS}")).await?;
    let header = |name: &str| watch.headers.get(name).and_then(|value| value.to_str().ok());
    ensure!(header("content-type") == Some("application/json"), "{:?}", watch.headers);
    ensure!((header("transfer-encoding"), header("content-length")) == (Some("chunked"), None), "{:?}", watch.headers);

    let path = format!("{CONFIG_MAPS}/honesty-watched");
    let made = make(far, "honesty-watched").await?;
    let mut changed = made.clone();
    changed["data"]["k"] = json!("2");
    far.send("PUT", &path, &changed).await?.expect(200)?;
    far.send("DELETE", &path, &json!({})).await?.expect(200)?;
    let mut last = made["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse::<u64>()?;
    for (wanted, data) in [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")] {
        let event = watch.next().await?.context("the watch was ended")?;
        let told =
            (&event["type"], &event["object"]["kind"], &event["object"]["metadata"]["name"], &event["object"]["data"]["k"]);
        ensure!(told == (&json!(wanted), &json!("ConfigMap"), &json!("honesty-watched"), &json!(data)), "{event}");
        let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse::<u64>()?;
        ensure!(version > last || wanted == "ADDED", "{version} after {last}");
        last = version;
    }
    Ok(())
}

async fn watch_from_now(far: &Far) -> Result<()> {
    make(far, "honesty-there").await?;
    let field = "fieldSelector=metadata.name%3Dhonesty-there";
    for version in ["", "&resourceVersion=0"] {
        let mut watch = far.lines(&format!("{CONFIG_MAPS}?watch=true&{field}{version}")).await?;
        let event = watch.next().await?.context("the watch was ended")?;
        ensure!((&event["type"], &event["object"]["metadata"]["name"]) == (&json!("ADDED"), &json!("honesty-there")), "{event}");
    }
    Ok(())
}

async fn bookmark(far: &Far) -> Result<()> {
    let version = far.get(CONFIG_MAPS).await?.expect(200)?["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let query = format!("watch=true&timeoutSeconds=5&allowWatchBookmarks=true&resourceVersion={version}&{OURS}");
    let mut watch = far.lines(&format!("{CONFIG_MAPS}?{query}")).await?;
    let mut n_bookmarks = 0;
    while let Some(event) = watch.next().await? {
        let told = (&event["type"], &event["object"]["kind"], &event["object"]["apiVersion"]);
        ensure!(told == (&json!("BOOKMARK"), &json!("ConfigMap"), &json!("v1")), "{event}");
        event["object"]["metadata"]["resourceVersion"].as_str().context("no version")?.parse::<u64>()?;
        n_bookmarks += 1;
    }
    if n_bookmarks == 0 {
        far.only_of_the_fake("this version sends its first bookmark after up to a minute")?;
    }
    // They come once a minute, and 2 s before the end of a watch's time.
    ensure!(n_bookmarks > 0, "the time was over without a bookmark");
    Ok(())
}

async fn watch_gone(far: &Far) -> Result<()> {
    far.only_of_the_fake("a watch cache remembers what its etcd has forgotten, until as much again has happened")?;
    far.compact().await?;
    let mut watch = far.lines(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=1")).await?;
    let event = watch.next().await?.context("no word")?;
    let status = &event["object"];
    let told = (&event["type"], &status["kind"], &status["code"], &status["reason"]);
    ensure!(told == (&json!("ERROR"), &json!("Status"), &json!(410), &json!("Expired")), "{event}");
    ensure!(status["message"].as_str().is_some_and(|text| text.starts_with("too old resource version: 1 (")), "{event}");
    ensure!(watch.next().await?.is_none(), "the watch goes on");
    Ok(())
}

async fn page_gone(far: &Far) -> Result<()> {
    let first = far.get(&format!("{CONFIG_MAPS}?limit=1")).await?.expect(200)?;
    make(far, "honesty-page-after").await?;
    far.compact().await?;
    let next = |token: &Value| format!("{CONFIG_MAPS}?limit=500&continue={}", token.as_str().unwrap_or_default());
    let refused = far.get(&next(&first["metadata"]["continue"])).await?.refused(410, "Expired")?;
    let message = "The provided continue parameter is too old to display a consistent list result.";
    ensure!(refused["message"].as_str().is_some_and(|text| text.starts_with(message)), "{refused}");
    let rest = far.get(&next(&refused["metadata"]["continue"])).await?.expect(200)?;
    ensure!(rest.to_string().contains("honesty-page-after"), "not as it is now");
    Ok(())
}

async fn page_malformed(far: &Far) -> Result<()> {
    let status = far.get(&format!("{CONFIG_MAPS}?limit=1&continue=nonsense")).await?.refused(400, "BadRequest")?;
    ensure!(status["message"].as_str().is_some_and(|text| text.contains("continue key is not valid")), "{status}");
    Ok(())
}

async fn future_version(far: &Far) -> Result<()> {
    let reply = far.get(&format!("{CONFIG_MAPS}?resourceVersion=999999999")).await?;
    let status = reply.refused(504, "Timeout")?;
    ensure!(status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge", "{status}");
    ensure!(status["details"]["retryAfterSeconds"] == 1 && reply.header("retry-after") == "1", "{status} {:?}", reply.headers);
    Ok(())
}

async fn create(far: &Far) -> Result<()> {
    let made = make(far, "honesty-made").await?;
    ensure!((&made["kind"], &made["apiVersion"]) == (&json!("ConfigMap"), &json!("v1")), "{made}");
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        ensure!(made["metadata"][field].is_string(), "no {field} in {made}");
    }
    let status = far.send("POST", CONFIG_MAPS, &config_map("honesty-made")).await?.refused(409, "AlreadyExists")?;
    ensure!(status["details"] == json!({ "name": "honesty-made", "kind": "configmaps" }), "{status}");
    ensure!(status["message"] == "configmaps \"honesty-made\" already exists", "{status}");
    Ok(())
}

async fn generate_name(far: &Far) -> Result<()> {
    let made = make_any(far).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    ensure!(name.strip_prefix("honesty-any-").is_some_and(|rest| rest.len() == 5), "{name}");
    Ok(())
}

async fn dry_run(far: &Far) -> Result<()> {
    far.send("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("honesty-dry")).await?.expect(201)?;
    far.get(&format!("{CONFIG_MAPS}/honesty-dry")).await?.refused(404, "NotFound")?;
    Ok(())
}

async fn conflict(far: &Far) -> Result<()> {
    let made = make(far, "honesty-contended").await?;
    let path = format!("{CONFIG_MAPS}/honesty-contended");
    let mut first = made.clone();
    first["data"]["k"] = json!("2");
    far.send("PUT", &path, &first).await?.expect(200)?;
    let status = far.send("PUT", &path, &made).await?.refused(409, "Conflict")?;
    ensure!(status["message"].as_str().is_some_and(|text| text.contains("the object has been modified")), "{status}");
    Ok(())
}

async fn patches(far: &Far) -> Result<()> {
    make(far, "honesty-patched").await?;
    let path = format!("{CONFIG_MAPS}/honesty-patched");
    let patch = async |media_type: &str, body: &str| far.ask("PATCH", &path, &[("content-type", media_type)], body).await;
    for (media_type, body, wanted) in [
        ("application/json-patch+json", r#"[{"op":"replace","path":"/data/k","value":"json"}]"#, "json"),
        ("application/merge-patch+json", r#"{"data":{"k":"merge"}}"#, "merge"),
        ("application/strategic-merge-patch+json", r#"{"data":{"k":"strategic"}}"#, "strategic"),
    ] {
        let patched = patch(media_type, body).await?.expect(200)?;
        ensure!(patched["data"]["k"] == wanted, "{patched}");
    }
    patch("application/json", "{}").await?.refused(415, "UnsupportedMediaType")?;
    Ok(())
}

async fn malformed_patches(far: &Far) -> Result<()> {
    let made = make(far, "honesty-unpatched").await?;
    let path = format!("{CONFIG_MAPS}/honesty-unpatched");
    for media_type in ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let reply = far.ask("PATCH", &path, &[("content-type", media_type)], "{").await?;
        // Old ones say 500 to a merge patch that is no JSON, newer ones 400 to all, and so does the fake.
        ensure!(reply.status == 400 || reply.status == 500 && media_type.contains("merge"), "{media_type}: {reply:?}");
        ensure!(reply.json()?["kind"] == "Status", "{media_type}: {reply:?}");
    }
    let there = far.get(&path).await?.expect(200)?;
    ensure!(there["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "{there}");
    Ok(())
}

async fn delete(far: &Far) -> Result<()> {
    let made = make(far, "honesty-deleted").await?;
    let path = format!("{CONFIG_MAPS}/honesty-deleted");
    let status = far.send("DELETE", &path, &json!({})).await?.expect(200)?;
    let details = json!({ "name": "honesty-deleted", "kind": "configmaps", "uid": made["metadata"]["uid"] });
    ensure!(
        (&status["kind"], &status["status"], &status["details"]) == (&json!("Status"), &json!("Success"), &details),
        "{status}"
    );
    for method in ["GET", "DELETE"] {
        let status = far.ask(method, &path, &[], "").await?.refused(404, "NotFound")?;
        ensure!(status["details"] == json!({ "name": "honesty-deleted", "kind": "configmaps" }), "{status}");
        ensure!(status["message"] == "configmaps \"honesty-deleted\" not found", "{status}");
    }
    Ok(())
}

async fn bad_bodies(far: &Far) -> Result<()> {
    let post = async |media_type: &str, body: &str| far.ask("POST", CONFIG_MAPS, &[("content-type", media_type)], body).await;
    post("application/json", "{").await?.refused(400, "BadRequest")?;
    post("application/json", r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#)
        .await?
        .refused(400, "BadRequest")?;
    post("text/plain", "{}").await?.refused(415, "UnsupportedMediaType")?;
    let nameless = far.send("POST", CONFIG_MAPS, &json!({ "apiVersion": "v1", "kind": "ConfigMap" })).await?;
    let status = nameless.refused(422, "Invalid")?;
    ensure!(status["details"]["causes"][0]["field"] == "metadata.name", "{status}");
    Ok(())
}

async fn unknown(far: &Far) -> Result<()> {
    let status = far.get("/api/v1/namespaces/default/guesses").await?.refused(404, "NotFound")?;
    ensure!(
        status["message"] == "the server could not find the requested resource" && status["details"] == json!({}),
        "{status}"
    );
    let reply = far.get("/apis/guess.example.com/v1/guesses").await?;
    ensure!(reply.status == 404 && reply.text == "404 page not found\n", "{reply:?}");
    ensure!(reply.header("content-type") == "text/plain; charset=utf-8", "{:?}", reply.headers);
    Ok(())
}

async fn method(far: &Far) -> Result<()> {
    let status =
        far.ask("PUT", CONFIG_MAPS, &[("content-type", "application/json")], "{}").await?.refused(405, "MethodNotAllowed")?;
    ensure!(status["details"] == json!({}), "{status}");
    Ok(())
}

async fn unauthorized(far: &Far) -> Result<()> {
    let reply = far.ask("GET", CONFIG_MAPS, &[("authorization", "Bearer of-nobody")], "").await?;
    let status = reply.refused(401, "Unauthorized")?;
    ensure!(status["message"] == "Unauthorized" && reply.header("content-type") == "application/json", "{reply:?}");
    Ok(())
}

async fn table(far: &Far) -> Result<()> {
    make(far, "honesty-row").await?;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = far.ask("GET", &format!("{CONFIG_MAPS}?{OURS}"), &[("accept", accept)], "").await?.expect(200)?;
    ensure!((&table["kind"], &table["apiVersion"]) == (&json!("Table"), &json!("meta.k8s.io/v1")), "{table}");
    let names: Vec<_> =
        table["columnDefinitions"].as_array().into_iter().flatten().map(|column| column["name"].clone()).collect();
    ensure!(names == ["Name", "Data", "Age"], "{names:?}");
    let row = &table["rows"][0];
    ensure!(row["cells"].as_array().map(Vec::len) == Some(names.len()), "{row}");
    ensure!(row["object"]["kind"] == "PartialObjectMetadata", "{row}");
    Ok(())
}

async fn discovery(far: &Far) -> Result<()> {
    let versions = far.get("/api").await?.expect(200)?;
    ensure!(versions["kind"] == "APIVersions" && versions["versions"] == json!(["v1"]), "{versions}");
    let groups = far.get("/apis").await?.expect(200)?;
    ensure!(groups["kind"] == "APIGroupList", "{groups}");
    let apps = groups["groups"].as_array().into_iter().flatten().find(|group| group["name"] == "apps").context("no apps")?;
    ensure!(apps["preferredVersion"] == json!({ "groupVersion": "apps/v1", "version": "v1" }), "{apps}");
    for (path, group, plural, kind, namespaced) in [
        ("/api/v1", "v1", "configmaps", "ConfigMap", true),
        ("/api/v1", "v1", "namespaces", "Namespace", false),
        ("/apis/apps/v1", "apps/v1", "deployments", "Deployment", true),
    ] {
        let list = far.get(path).await?.expect(200)?;
        ensure!((&list["kind"], &list["groupVersion"]) == (&json!("APIResourceList"), &json!(group)), "{path}: {list}");
        let found = list["resources"].as_array().into_iter().flatten().find(|resource| resource["name"] == plural);
        let found = found.with_context(|| format!("no {plural}"))?;
        ensure!(found["kind"] == kind && found["namespaced"] == namespaced, "{found}");
        let verbs = found["verbs"].as_array().context("no verbs")?;
        for verb in ["create", "delete", "get", "list", "patch", "update", "watch"] {
            ensure!(verbs.contains(&json!(verb)), "no {verb} in {found}");
        }
    }
    Ok(())
}

async fn throttled(far: &Far) -> Result<()> {
    let reply = far.throttled().await?;
    ensure!(reply.status == 429 && reply.header("retry-after") == "1", "{reply:?}");
    ensure!(reply.header("content-type") == "text/plain; charset=utf-8", "{reply:?}");
    ensure!(reply.text == "Too many requests, please try again later.\n", "{reply:?}");
    Ok(())
}

async fn goaway(far: &Far) -> Result<()> {
    far.go_away()?;
    let mut sender = far.http2().await?;
    for n in 0..UNTIL_GOAWAY {
        match sender.try_send_request(far.request2("/api/v1/namespaces/default")?).await {
            Ok(answer) => whole(answer).await?.expect(200).map(|_| ())?,
            Err(mut error) => {
                let is_back = error.take_message().is_some();
                ensure!(is_back, "a request went with its connection: {}", error.error());
                ensure!(n > 0, "no request was answered");
                return Ok(());
            }
        }
    }
    anyhow::bail!("no GOAWAY in {UNTIL_GOAWAY} requests")
}
