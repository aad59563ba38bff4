//! The real kubectl, with a kubeconfig, a namespace and a deadline.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Process, wait_for};

/// No single call of these suites takes half as long, on two busy cores too.
const CALL_MAX: Duration = Duration::from_secs(120);

/// One way to ask one API server.
#[derive(Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    raw_prefix: String,
    env: Vec<(String, String)>,
}

/// What a call said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output, bytes as they came.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Kubectl {
    /// A kubectl with this kubeconfig, in the namespace `default`.
    ///
    /// Every `--raw` path is put behind `raw_prefix`, since kubectl replaces the path of the kubeconfig's server by it.
    pub fn new(program: &Path, kubeconfig: &Path, raw_prefix: &str) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            namespace: "default".to_owned(),
            raw_prefix: raw_prefix.to_owned(),
            env: Vec::new(),
        }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The same with an environment variable.
    #[must_use]
    pub fn with_env(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.env.push((name.to_owned(), value.to_owned()));
        with
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The namespace it works in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command of this kubectl, for who wants to run it otherwise.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // The cache of discovery is keyed by host and port, and ports come again: it must not outlive the scene.
        command.arg("--cache-dir").arg(self.kubeconfig.with_extension("cache"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]).args(args);
        command.env_remove("KUBECONFIG").envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it with `stdin`, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn run(&self, args: &[&str], stdin: &[u8]) -> Result<Output> {
        call(self.command(args), stdin)
    }

    /// Runs it and gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.ok_with(args, b"")
    }

    /// As [`Kubectl::ok`], with `stdin`.
    pub fn ok_with(&self, args: &[&str], stdin: &[u8]) -> Result<String> {
        let output = self.run(args, stdin)?;
        ensure!(output.code == Some(0), "kubectl {args:?}: exit code {:?}: {}", output.code, output.stderr);
        Ok(output.text())
    }

    /// Runs it with `-o json` and parses what it says.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let args = [args, &["-o", "json"]].concat();
        serde_json::from_str(&self.ok(&args)?).with_context(|| format!("kubectl {args:?}"))
    }

    /// `kubectl get --raw PATH`.
    pub fn raw(&self, path: &str) -> Result<String> {
        self.ok(&["get", "--raw", &format!("{}{path}", self.raw_prefix)])
    }

    /// `kubectl create -f` of an object, sent as JSON (`create configmap NAME` sends protobuf, which the fake cannot read).
    pub fn create(&self, object: &Value) -> Result<String> {
        self.ok_with(&["create", "-f", "-"], object.to_string().as_bytes())
    }

    /// `kubectl create --raw PATH`: sends the bytes as they are.
    pub fn raw_create(&self, path: &str, object: &[u8]) -> Result<String> {
        self.ok_with(&["create", "--raw", &format!("{}{path}", self.raw_prefix), "-f", "-"], object)
    }

    /// Starts a call that goes on, with its output in `DIR/NAME.log`.
    pub fn start(&self, dir: &Path, name: &str, args: &[&str]) -> Result<Process> {
        Process::start(dir, name, self.command(args))
    }
}

/// Runs any command with `stdin` to its end, for at most two minutes.
pub fn call(mut command: Command, stdin: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else { bail!("no pipes") };
    thread::scope(|scope| {
        let stdout = scope.spawn(move || read_all(output));
        let stderr = scope.spawn(move || read_all(errors));
        // A child that ends early closes its pipe; its exit code says more about it than this write.
        scope.spawn(move || input.write_all(stdin));
        let ended = wait_for(&format!("the end of {command:?}"), CALL_MAX, || Ok(child.try_wait()?));
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let stdout = stdout.join().unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
        let status = ended.with_context(|| stderr.clone())?;
        Ok(Output { code: status.code(), stdout, stderr })
    })
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    // A broken pipe is an end too: what came before it is what there is.
    let _ = from.read_to_end(&mut all);
    all
}
