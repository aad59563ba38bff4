//! The API: what kubectl reads, writes and watches.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Client, Kind, Kubectl, Process, Scene, Suite, wait_for};
use serde_json::{Value, json};

/// For what happens within a second: another round trip, the next event of a watch.
const SOON: Duration = Duration::from_secs(20);

/// Enough for ten pages of [`PAGE`].
const N_SMALL: usize = 1000;
const PAGE: usize = 100;

/// 31 objects of a mebibyte less a little (an object's own limit) are a list of over 30 MiB.
const N_BIG: usize = 31;
const BIG_BYTES: usize = 1_020_000;

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &Scene) {
    suite.step("get", || get(scene));
    suite.step("the list of clusters tells the version that the API server tells", || listed(scene));
    suite.step("get -w sees what is created meanwhile", || watch(scene));
    suite.step("apply, label, patch, delete", || change(scene));
    if scene.upstream.kind != Kind::Fake {
        suite.step("a body of protobuf", || protobuf(scene));
        suite.step("apply --server-side", || server_side_apply(scene));
        suite.step("auth can-i", || can_i(scene));
    }
    suite.step("wait", || wait(scene));
    suite.step("api-resources", || api_resources(scene));
    suite.step("get --raw and odd paths", || odd_paths(scene));
    suite.step("four kubectl create 1000 objects side by side", || create_in_parallel(scene));
    suite.step("get --chunk-size pages through 1000 objects", || pages(scene));
    suite.step("a watch with a resourceVersion resumes", || watch_resumes(scene));
    suite.step("a 30 MiB list gets whole", || big_list(scene));
    if scene.upstream.kind != Kind::Fake {
        suite.step("a caller that dies ends its watch upstream", || watches_end(scene));
    }
}

fn get(scene: &Scene) -> Result<()> {
    let version: Value = serde_json::from_str(&scene.through.raw("/version")?)?;
    ensure!(version["gitVersion"].is_string(), "{version}");
    let namespaces = scene.through.ok(&["get", "namespaces", "-o", "name"])?;
    ensure!(namespaces.contains(&format!("namespace/{}\n", scene.namespace())), "{namespaces}");
    let missing = scene.through.run(&["get", "configmap", "no-such"], b"")?;
    ensure!(missing.code == Some(1) && missing.stderr.contains("NotFound"), "{missing:?}");
    // The table is the server's own rendering, asked for by an Accept header.
    let table = scene.through.ok(&["get", "namespace", scene.namespace()])?;
    ensure!(table.contains("Active"), "{table}");
    Ok(())
}

/// Asked by the hub itself, as the agent's own account; without a tunnel there is nothing to list.
fn listed(scene: &Scene) -> Result<()> {
    let Some(pair) = &scene.pair else { return Ok(()) };
    let version: Value = serde_json::from_str(&scene.admin.raw("/version")?)?;
    let told = e2e::get(pair.internal(), "/clusters")?.text();
    let told: Value = serde_json::from_str::<Value>(&told).context(told)?["clusters"][0].take();
    ensure!(told["state"] == "healthy" && told["kubernetes"] == version["gitVersion"], "{told}");
    Ok(())
}

fn watch(scene: &Scene) -> Result<()> {
    let admin = &scene.admin;
    admin.create(&config_map("seen-first", &[]))?;
    let mut watch = scene.through.start(scene.dir(), "watch", &["get", "configmaps", "-w", "-o", "name"])?;
    watch.wait_for_line("configmap/seen-first", SOON)?;
    for n in 0..3 {
        let name = format!("seen-{n}");
        admin.create(&config_map(&name, &[]))?;
        watch.wait_for_line(&name, SOON)?;
    }
    Ok(())
}

fn change(scene: &Scene) -> Result<()> {
    let kubectl = &scene.through;
    let apply = |color: &str| {
        let object = config_map("changing", &[("color", color)]);
        kubectl.ok_with(&["apply", "-f", "-"], object.to_string().as_bytes())
    };
    let created = apply("red")?;
    ensure!(created.contains("created"), "{created}");
    let again = apply("red")?;
    ensure!(again.contains("unchanged"), "{again}");
    let changed = apply("blue")?;
    ensure!(changed.contains("configured"), "{changed}");
    kubectl.ok(&["label", "configmap", "changing", "sort=odd"])?;
    kubectl.ok(&["patch", "configmap", "changing", "-p", r#"{"data":{"shape":"round"}}"#])?;
    kubectl.ok(&["patch", "configmap", "changing", "--type=json", "-p", r#"[{"op":"add","path":"/data/size","value":"9"}]"#])?;
    let found = scene.admin.json(&["get", "configmaps", "-l", "sort=odd"])?;
    let data = &found["items"][0]["data"];
    ensure!(*data == json!({"color": "blue", "shape": "round", "size": "9"}), "{found}");
    kubectl.ok(&["delete", "configmap", "changing"])?;
    let gone = scene.admin.run(&["get", "configmap", "changing"], b"")?;
    ensure!(gone.stderr.contains("NotFound"), "{gone:?}");
    Ok(())
}

/// kubectl sends what it makes by itself in the binary form.
fn protobuf(scene: &Scene) -> Result<()> {
    scene.through.ok(&["create", "configmap", "binary", "--from-literal=color=red"])?;
    let found = scene.admin.json(&["get", "configmap", "binary"])?;
    ensure!(found["data"]["color"] == "red", "{found}");
    Ok(())
}

fn server_side_apply(scene: &Scene) -> Result<()> {
    let apply = |manager: &str, color: &str, more: &[&str]| {
        let args = [&["apply", "--server-side", "-f", "-", "--field-manager", manager], more].concat();
        scene.through.run(&args, config_map("shared", &[("color", color)]).to_string().as_bytes())
    };
    let first = apply("one", "red", &[])?;
    ensure!(first.code == Some(0), "{first:?}");
    let conflict = apply("two", "blue", &[])?;
    ensure!(conflict.code == Some(1) && conflict.stderr.contains("conflict"), "{conflict:?}");
    let forced = apply("two", "blue", &["--force-conflicts"])?;
    ensure!(forced.code == Some(0), "{forced:?}");
    let found = scene.admin.json(&["get", "configmap", "shared"])?;
    ensure!(found["data"]["color"] == "blue", "{found}");
    Ok(())
}

fn wait(scene: &Scene) -> Result<()> {
    scene.admin.create(&config_map("awaited", &[("state", "early")]))?;
    let condition = "--for=jsonpath={.data.state}=late";
    let mut wait = scene.through.start(scene.dir(), "wait", &["wait", condition, "configmap/awaited", "--timeout=60s"])?;
    let mut gone = scene.through.start(scene.dir(), "gone", &["wait", "--for=delete", "configmap/awaited", "--timeout=60s"])?;
    scene.admin.ok(&["patch", "configmap", "awaited", "-p", r#"{"data":{"state":"late"}}"#])?;
    let status = wait.wait_for_exit(SOON)?;
    ensure!(status.success(), "{}", wait.log());
    scene.admin.ok(&["delete", "configmap", "awaited"])?;
    let status = gone.wait_for_exit(SOON)?;
    ensure!(status.success(), "{}", gone.log());
    Ok(())
}

fn api_resources(scene: &Scene) -> Result<()> {
    let listed = |kubectl: &Kubectl| kubectl.ok(&["api-resources", "-o", "name"]);
    let (through, direct) = (listed(&scene.through)?, listed(&scene.admin)?);
    ensure!(through == direct && through.contains("configmaps\n"), "through the tunnel:\n{through}\ndirect:\n{direct}");
    Ok(())
}

fn can_i(scene: &Scene) -> Result<()> {
    let answer = scene.through.ok(&["auth", "can-i", "create", "configmaps"])?;
    ensure!(answer.trim() == "yes", "{answer}");
    Ok(())
}

/// Paths must arrive as they were sent: the upstream's own answer to each is the measure.
/// An answer without what moves on in a living cluster between two questions: the version of a list.
fn at_rest((status, body): (u16, String)) -> (u16, Value) {
    let mut body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    if body["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) {
        body["metadata"]["resourceVersion"].take();
    }
    (status, body)
}

fn odd_paths(scene: &Scene) -> Result<()> {
    scene.admin.create(&config_map("odd", &[]))?;
    let (through, direct) = (Client::new(&scene.through)?, Client::new(&scene.admin)?);
    let home = format!("/api/v1/namespaces/{}/configmaps", scene.namespace());
    let long = "x".repeat(8 * 1024);
    let odd = [
        format!("{home}/odd"),
        format!("{home}?fieldSelector=metadata.name%3Dodd"),
        format!("{home}?fieldSelector=metadata.name=odd&&limit=1&"),
        format!("{home}/odd?"),
        format!("{home}/odd?pretty=false&x={long}"),
        format!("{home}/o%64d"),
        format!("{home}/no%2Fsuch"),
        format!("{home}/no%252Fsuch"),
        format!("{home}/no%20such%C3%A9"),
        format!("{home}//odd"),
        format!("/{home}/odd"),
        format!("{home}/../configmaps/odd"),
        format!("{home}/./odd"),
        format!("{home}/odd/"),
        "/no/such?a=b?c=d/../e".to_owned(),
        "/".to_owned(),
    ];
    for path in odd {
        let (expected, got) = (at_rest(direct.get(&path)?), at_rest(through.get(&path)?));
        ensure!(got == expected, "{path}: {got:?} instead of {expected:?}");
    }
    let raw = |path: &str| scene.through.raw(path);
    ensure!(raw(&format!("{home}?fieldSelector=metadata.name%3Dodd"))?.contains("\"odd\""), "the object is not in its list");
    ensure!(raw("/no-such").is_err(), "a path that does not exist was found");
    Ok(())
}

fn create_in_parallel(scene: &Scene) -> Result<()> {
    const N_SIDE: usize = 4;
    let create = |side: usize| {
        let names = (side * N_SMALL / N_SIDE)..((side + 1) * N_SMALL / N_SIDE);
        let objects = names.map(|n| small(&format!("small-{n:04}"))).collect();
        // Each stays below the burst (300) after which kubectl slows itself down.
        scene.through.ok_with(&["create", "--validate=false", "-o", "name", "-f", "-"], &list(objects))
    };
    thread::scope(|scope| {
        let sides: Vec<_> = (0..N_SIDE).map(|side| scope.spawn(move || create(side))).collect();
        for side in sides {
            let created = side.join().unwrap_or_else(|_| bail!("a side panicked"))?;
            ensure!(created.lines().count() == N_SMALL / N_SIDE, "{created}");
        }
        Ok(())
    })
}

fn pages(scene: &Scene) -> Result<()> {
    let args = ["get", "configmaps", "-l", "size=small", "-o", "name", &format!("--chunk-size={PAGE}"), "-v=6"];
    let output = scene.through.run(&args, b"")?;
    let names = output.text().lines().count();
    ensure!(output.code == Some(0) && names == N_SMALL, "{names} names; {}", output.stderr);
    let n_pages = output.stderr.lines().filter(|line| line.contains("limit=") && line.contains("GET")).count();
    ensure!(n_pages >= N_SMALL / PAGE, "{n_pages} pages:\n{}", output.stderr);
    Ok(())
}

fn watch_resumes(scene: &Scene) -> Result<()> {
    let home = format!("/api/v1/namespaces/{}/configmaps", scene.namespace());
    let list: Value = serde_json::from_str(&scene.through.raw(&format!("{home}?limit=1"))?)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list without a resourceVersion")?;
    scene.admin.create(&config_map("resumed-1", &[]))?;
    scene.admin.ok(&["label", "configmap", "resumed-1", "seen=yes"])?;
    scene.admin.ok(&["delete", "configmap", "resumed-1"])?;
    let watched = scene.through.raw(&format!("{home}?watch=1&resourceVersion={version}&timeoutSeconds=2"))?;
    let mut events = Vec::new();
    for line in watched.lines() {
        let event: Value = serde_json::from_str(line)?;
        events.push(format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"])));
    }
    ensure!(events == ["ADDED resumed-1", "MODIFIED resumed-1", "DELETED resumed-1"], "{events:?}");
    Ok(())
}

fn big_list(scene: &Scene) -> Result<()> {
    let home = format!("/api/v1/namespaces/{}/configmaps", scene.namespace());
    let noise = noise();
    for n in 0..N_BIG {
        // Rotated, so that an object in the place of another does not go unseen.
        let text = format!("{}{}", &noise[n..], &noise[..n]);
        let object = big(&format!("big-{n:02}"), &text);
        scene.through.raw_create(&home, object.to_string().as_bytes())?;
    }
    let path = format!("{home}?labelSelector=size%3Dbig");
    let items = |kubectl: &Kubectl| -> Result<(usize, Value)> {
        let list = kubectl.raw(&path)?;
        let mut parsed: Value = serde_json::from_str(&list)?;
        Ok((list.len(), parsed["items"].take()))
    };
    let (bytes, through) = items(&scene.through)?;
    ensure!(bytes > 30 << 20, "a list of only {bytes} bytes");
    ensure!(through == items(&scene.admin)?.1, "the list differs from the upstream's own");
    Ok(())
}

/// What kube-apiserver says of running watches; only callers of ours watch pod templates of a single namespace.
fn watches_end(scene: &Scene) -> Result<()> {
    let running = || -> Result<u64> {
        let metrics = scene.admin.raw("/metrics")?;
        // The gauge was renamed in Kubernetes 1.23.
        let ours = metrics.lines().filter(|line| {
            (line.starts_with("apiserver_longrunning_gauge{") || line.starts_with("apiserver_longrunning_requests{"))
                && [r#"resource="podtemplates""#, r#"scope="namespace""#, r#"verb="WATCH""#]
                    .iter()
                    .all(|label| line.contains(label))
        });
        Ok(ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    };
    let before = running()?;
    let start = |n: u64| scene.through.start(scene.dir(), &format!("dying-{n}"), &["get", "podtemplates", "-w"]);
    let mut callers: Vec<Process> = (0..5).map(start).collect::<Result<_>>()?;
    wait_for("five more watches", SOON, || Ok((running()? == before + 5).then_some(())))?;
    callers.iter_mut().for_each(Process::kill);
    wait_for("the watches of dead callers to end", SOON, || Ok((running()? == before).then_some(())))
}

pub(crate) fn config_map(name: &str, data: &[(&str, &str)]) -> Value {
    let data: Value = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn small(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"size": "small"}}})
}

fn big(name: &str, text: &str) -> Value {
    let labels = json!({"size": "big"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"text": text}})
}

/// Hard to compress (xorshift64), so that what travels is about as long as it looks.
fn noise() -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 32) as u8 % 64)
    };
    (0..BIG_BYTES).map(|_| next()).map(|c| if c == '\\' { '~' } else { c }).collect()
}

fn list(items: Vec<Value>) -> Vec<u8> {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string().into_bytes()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
