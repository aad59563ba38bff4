//! `cargo xtask dev`: a fake cluster, an agent and a server on loopback, as three processes with certificates of their own.

mod child;
mod get;
mod kind;
mod log;
mod stop;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::child::Crew;
use self::stop::Stop;
use crate::run::{said, step};
use crate::workspace::{bin_dir, cargo, given_bins, target_dir};

/// The one cluster's id.
const CLUSTER: &str = "dev";

/// From the last start to the first answer: three processes on loopback take a second; a loaded machine takes its time.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long the server and the agent let running requests go on at the end: a `kubectl get -w` would otherwise keep who
/// typed Ctrl-C waiting. Well within the grace after which a child is killed.
const DRAIN: &str = "2s";

/// How often we look whether something has happened; people do not notice it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How the verb is spelt.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("dev")
        .about("Starts a fake cluster, an agent and a server on loopback, and follows their logs until Ctrl-C")
        .long_about(
            "Starts a fake cluster, an agent and a server on loopback, and follows their logs until Ctrl-C.\n\n\
             With --kind: makes two kind clusters, a hub and an edge, builds the images, installs both charts by helm with mutual TLS, and \
             prints a kubeconfig for each and one for the edge through the hub. Takes kind, docker, kubectl and helm, and two or \
             three minutes after the images are built. Ctrl-C removes both.",
        )
        .arg(crate::flag("once", "Stop as soon as a first request has gone all the way round"))
        .arg(crate::flag("kind", "Two kind clusters with images and charts as they ship"))
        .arg(crate::flag("down", "With --kind: remove what an earlier run that was killed has left").requires("kind").conflicts_with("once"))
}

/// The verb.
pub(crate) fn run_verb(args: &clap::ArgMatches) -> Result<()> {
    match (args.get_flag("kind"), args.get_flag("once")) {
        (true, once) => kind::run(once, args.get_flag("down")),
        (false, once) => on_loopback(once),
    }
}

/// Three processes; `once` stops after the first request has gone all the way round.
fn on_loopback(once: bool) -> Result<()> {
    let stop = Stop::on_signals()?;
    if given_bins().is_none() {
        let packages = ["build", "--package", "server", "--package", "agent", "--package", "sim", "--bins"];
        step("build", || child::finish(cargo(&packages), &stop))?;
    }
    // Declared before the crew: the folder is ours until the last child has ended.
    let place = Place::prepare()?;
    let mut crew = Crew::new();
    let result = play(&mut crew, &stop, &place, once);
    crew.drain(&stop);
    result
}

/// Starts the three, says when they are ready, and follows them until somebody stops us or one of them dies.
fn play(crew: &mut Crew, stop: &Stop, place: &Place, once: bool) -> Result<()> {
    let [apiserver, public, internal] = free_ports()?;

    crew.start("sim", place.sim(apiserver))?;
    until(crew, stop, "the fake API server's token file", || place.at("sa-token").exists())?;
    crew.start("server", place.server(public, internal))?;
    crew.start("agent", place.agent(public, apiserver))?;
    let path = format!("/tunnel/{CLUSTER}/version");
    until(crew, stop, "a first request", || get::status(internal, &path).is_ok_and(|status| status == 200))?;

    let kubeconfig = place.kubeconfig(internal)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready: KUBECONFIG={}", kubeconfig.display())?;
    if once {
        return Ok(());
    }
    write!(out, "{}", hints(&kubeconfig))?;
    drop(out);
    while !stop.asked() {
        crew.alive()?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Looks until `happened`, while all children live and nobody stops us.
fn until(crew: &mut Crew, stop: &Stop, what: &str, happened: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !happened() {
        crew.alive()?;
        if stop.asked() {
            bail!("stopped before it was ready");
        }
        if started.elapsed() > READY_MAX {
            bail!("{what} did not come within {READY_MAX:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn hints(kubeconfig: &Path) -> String {
    format!(
        "\nIn another terminal:\n  \
         export KUBECONFIG={}\n  \
         kubectl get pods -A\n  \
         kubectl get pods -w\n  \
         kubectl create configmap hello --from-literal=from=postern --dry-run=client -o yaml | kubectl apply -f -\n  \
         kubectl logs -f web-0\n  \
         kubectl exec -it web-0 -- sh\n\
         Ctrl-C stops everything.\n\n",
        kubeconfig.display()
    )
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    // All three are held before the first is let go, or the kernel may name one twice.
    let held = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// The folder with certificates, tokens and the kubeconfig, and the command lines that use them.
struct Place {
    dir: PathBuf,
    bins: PathBuf,
    token: String,
    /// Held while the folder is in use; the kernel lets go of it however we end.
    _lock: fs::File,
}

impl Place {
    /// Makes the folder anew; what lies in it belongs to one run.
    fn prepare() -> Result<Self> {
        let dir = std::path::absolute(target_dir()?.join("dev"))?;
        fs::create_dir_all(&dir)?;
        let lock = fs::File::create(dir.join("lock"))?;
        lock.try_lock().context("another `cargo xtask dev` runs in this target folder")?;
        for old in ["sa-token", "kubeconfig"] {
            // It is absent on the first run.
            let _ = fs::remove_file(dir.join(old));
        }
        let place = Self { dir, bins: bin_dir()?, token: random_token()?, _lock: lock };
        said(place.program("postern-sim").args(["certs", "--out"]).arg(place.at("certs")))?;
        let clusters = serde_json::json!([{ "id": CLUSTER, "token": place.token }]);
        fs::write(place.at("clusters.json"), format!("{clusters:#}\n"))?;
        Ok(place)
    }

    fn at(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn cert(&self, file: &str) -> PathBuf {
        self.dir.join("certs").join(file)
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.bins.join(name))
    }

    fn sim(&self, port: u16) -> Command {
        let mut command = self.program("postern-sim");
        command.args(["apiserver", "--addr", &format!("127.0.0.1:{port}")]);
        command.arg("--cert").arg(self.cert("apiserver.pem"));
        command.arg("--key").arg(self.cert("apiserver.key"));
        command.arg("--token-file").arg(self.at("sa-token"));
        command
    }

    fn server(&self, public: u16, internal: u16) -> Command {
        let mut command = self.program("postern-server");
        command.args(["--addr", &format!("127.0.0.1:{public}"), "--internal-addr", &format!("127.0.0.1:{internal}")]);
        command.arg("--clusters").arg(self.at("clusters.json"));
        command.arg("--tls-cert").arg(self.cert("server.pem"));
        command.arg("--tls-key").arg(self.cert("server.key"));
        command.arg("--tls-client-ca").arg(self.cert("ca.pem"));
        command.args(["--drain", DRAIN]);
        command
    }

    fn agent(&self, public: u16, apiserver: u16) -> Command {
        let mut command = self.program("postern-agent");
        // By environment: command lines are for everybody to read.
        command.env("TOKEN", &self.token);
        command.args(["--server", &format!("wss://127.0.0.1:{public}/connect")]);
        command.args(["--target", &format!("127.0.0.1:{apiserver}")]);
        command.arg("--ca-cert").arg(self.cert("ca.pem"));
        command.arg("--sa-token-path").arg(self.at("sa-token"));
        command.arg("--server-ca-cert").arg(self.cert("ca.pem"));
        command.arg("--client-cert").arg(self.cert("agent.pem"));
        command.arg("--client-key").arg(self.cert("agent.key"));
        command.args(["--health-addr", "", "--drain", DRAIN]);
        command
    }

    /// Writes the kubeconfig that the server prints, and says where.
    fn kubeconfig(&self, internal: u16) -> Result<PathBuf> {
        let url = format!("http://127.0.0.1:{internal}");
        let file = self.at("kubeconfig");
        fs::write(&file, said(self.program("postern-server").args(["kubeconfig", CLUSTER, "--url", &url]))?)?;
        Ok(file)
    }
}

/// 128 bits from the operating system, in hex.
fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
