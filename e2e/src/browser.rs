//! A headless Chromium, driven over the DevTools protocol: what a person sees, presses and may be harmed by.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Process;

/// How long a browser may take to start, or to do one thing: a busy machine with two cores takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where Chromium writes its port and the path of its socket, in the folder of its profile.
const PORT_FILE: &str = "DevToolsActivePort";

/// What a browser is started with: nothing of the machine's, and no word to anybody but the page's own server.
const FLAGS: [&str; 15] = [
    "--headless",
    // Containers have no user namespaces for it, and root may not use it.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
];

/// Events of the protocol that no good page causes.
const COMPLAINTS: [&str; 4] =
    ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"];

/// A browser with one page; ends with this value.
pub struct Browser {
    runtime: Runtime,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    next_id: u64,
    events: Vec<Value>,
    process: Process,
}

impl Browser {
    /// Starts `program` with a profile of its own below `dir`.
    ///
    /// # Errors
    /// It does not start, or does not speak.
    pub fn start(program: &Path, dir: &Path) -> Result<Self> {
        let profile = dir.join("chromium");
        fs::create_dir_all(&profile)?;
        let mut command = Command::new(program);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.display())).arg("about:blank").env("HOME", &profile);
        let mut process = Process::start(dir, "chromium", command)?;
        let told = process.wait_until("its port", PATIENCE, |_| {
            let told = fs::read_to_string(profile.join(PORT_FILE)).ok()?;
            told.split_once('\n').map(|(port, path)| (port.to_owned(), path.trim().to_owned()))
        })?;
        let runtime = Runtime::new()?;
        let socket = runtime.block_on(async {
            let io = TcpStream::connect(format!("127.0.0.1:{}", told.0)).await?;
            anyhow::Ok(tokio_tungstenite::client_async(format!("ws://127.0.0.1:{}{}", told.0, told.1), io).await?.0)
        })?;
        let mut browser = Self { runtime, socket, session: None, next_id: 1, events: Vec::new(), process };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let opened = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(opened["errorText"].is_null(), "{url}: {opened}");
        self.loaded()
    }

    /// Waits until a page is loaded, by whatever it was that began it.
    pub fn loaded(&mut self) -> Result<()> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["method"] == "Page.loadEventFired") {
                self.events.remove(at);
                return Ok(());
            }
            let event = self.receive()?;
            self.events.push(event);
        }
    }

    /// Makes the window so many CSS pixels large.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).map(drop)
    }

    /// Prefers `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// The value of a JavaScript expression. It runs past the page's own policy.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let told =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }))?;
        ensure!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        Ok(told["result"]["value"].clone())
    }

    /// Presses a key, `Tab` or `Enter`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => bail!("no key {other}"),
        };
        let event = |kind: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", event(down))?;
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code }))
            .map(drop)
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Writes what the window shows into a PNG, and tells how many bytes it has.
    pub fn screenshot(&mut self, path: &Path) -> Result<usize> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let bytes = STANDARD.decode(shot["data"].as_str().context("a screenshot without data")?)?;
        fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        fs::write(path, &bytes).with_context(|| path.display().to_string())?;
        Ok(bytes.len())
    }

    /// What it complained of since it was asked last: errors, violations of policies, dialogs, words in the console.
    pub fn complaints(&mut self) -> Result<Vec<Value>> {
        // An answer behind all events so far.
        self.value("0")?;
        let (complaints, others) =
            self.events.drain(..).partition(|event| COMPLAINTS.iter().any(|complaint| event["method"] == *complaint));
        self.events = others;
        Ok(complaints)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail(20)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut call = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.runtime.block_on(self.socket.send(Message::text(call.to_string()))).context("send to the browser")?;
        loop {
            let mut told = self.receive().with_context(|| method.to_owned())?;
            if told["id"] == id {
                ensure!(told["error"].is_null(), "{method}: {}", told["error"]);
                return Ok(told["result"].take());
            }
            let is_dialog = told["method"] == "Page.javascriptDialogOpening";
            self.events.push(told);
            // A page that asks waits for its answer, and we for the page.
            ensure!(!is_dialog, "a dialog opened during {method}: {:?}", self.events);
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let next = self.runtime.block_on(async { timeout(PATIENCE, self.socket.next()).await });
        let message =
            next.with_context(|| format!("the browser says nothing for {PATIENCE:?}"))?.context("the browser is gone")??;
        serde_json::from_str(message.to_text()?).context("no JSON")
    }
}
