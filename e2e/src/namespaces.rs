//! Hosts as network namespaces of one machine: a link from each to a router, which is a namespace too.
//!
//! Everything is made inside these namespaces; the network of the machine itself is neither used nor changed. Names begin with
//! `postern-e2e-PID-`, so that what a killed run left behind is told from what another one needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::kubectl::call;
use crate::{Answer, Fault, Process, get_within, product};

/// What all names begin with, before the number of the process that made them.
const PREFIX: &str = "postern-e2e-";

/// Where iproute2 keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// GETs a path; fails when the answer is not whole, or nothing comes for the given time. May be used by any thread.
pub(crate) type Caller = Arc<dyn Fn(&str, Duration) -> Result<Answer> + Send + Sync>;

/// Hosts and the router between them; all are removed with this value.
pub(crate) struct Namespaces {
    dir: PathBuf,
    // Dropped before the router: their links lead to it.
    hosts: BTreeMap<String, Machine>,
    n_links: u8,
    router: Arc<Namespace>,
}

struct Machine {
    // Dropped before the namespace that it runs in.
    process: Option<Process>,
    addr: Ipv4Addr,
    namespace: Namespace,
}

impl Namespaces {
    /// Makes the router, and removes what runs that were killed have left behind. Logs go to `dir`.
    ///
    /// # Errors
    /// When this process may not make namespaces.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        remove_stale()?;
        let router = Namespace::create("router")?;
        router.ip(&["link", "set", "lo", "up"])?;
        let forward = call(router.command("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]), b"")?;
        ensure!(forward.code == Some(0), "turn forwarding on: {}", forward.stderr);
        Ok(Self { dir: dir.to_owned(), hosts: BTreeMap::new(), n_links: 0, router: Arc::new(router) })
    }

    /// Adds a host on which nothing runs yet; gives the address at which the others reach it.
    pub(crate) fn add(&mut self, host: &str) -> Result<String> {
        let namespace = Namespace::create(host)?;
        self.n_links += 1;
        // Of the block for benchmarks (RFC 2544); nobody outside of these namespaces sees it.
        let [addr, gateway] = [2, 1].map(|last| Ipv4Addr::new(198, 18, self.n_links, last));
        let link = format!("link{}", self.n_links);
        self.router.ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace.name])?;
        self.router.ip(&["addr", "add", &format!("{gateway}/24"), "dev", &link])?;
        self.router.ip(&["link", "set", &link, "up"])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.ip(&["addr", "add", &format!("{addr}/24"), "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        namespace.ip(&["route", "add", "default", "via", &gateway.to_string()])?;
        self.hosts.insert(host.to_owned(), Machine { process: None, addr, namespace });
        Ok(addr.to_string())
    }

    /// Starts a program of the product, for example `postern-agent`, there.
    pub(crate) fn start(&mut self, host: &str, program: &str, args: &[String]) -> Result<()> {
        let program = product(program)?;
        let dir = self.dir.clone();
        let machine = self.machine_mut(host)?;
        let command = machine.namespace.command(&program.to_string_lossy(), args);
        machine.process = Some(Process::start(&dir, host, command)?);
        Ok(())
    }

    /// The program ends at once (SIGKILL), and its peers are reset.
    pub(crate) fn crash(&mut self, host: &str) -> Result<()> {
        // Dropping a process kills it; its log stays.
        drop(self.machine_mut(host)?.process.take());
        Ok(())
    }

    /// The host loses its power, for good: the program ends and nobody is told.
    pub(crate) fn vanish(&mut self, host: &str) -> Result<()> {
        // The router is silent about it, or it would tell that the host is unreachable.
        let addr = self.machine(host)?.addr.to_string();
        blackhole(&self.router, "add", &["from", &addr])?;
        blackhole(&self.router, "add", &["to", &addr])?;
        self.machine(host)?.namespace.ip(&["link", "delete", "eth0"])?;
        self.crash(host)
    }

    /// Nothing passes between two hosts and nobody is told, until the fault is dropped.
    pub(crate) fn cut(&self, a: &str, b: &str) -> Result<Fault> {
        let (a, b) = (self.machine(a)?.addr.to_string(), self.machine(b)?.addr.to_string());
        let ways = [["from", &a, "to", &b], ["from", &b, "to", &a]].map(|way| way.map(str::to_owned));
        for way in &ways {
            blackhole(&self.router, "add", &way.each_ref().map(String::as_str))?;
        }
        let router = Arc::clone(&self.router);
        Ok(Fault::new(move || {
            for way in &ways {
                if let Err(error) = blackhole(&router, "delete", &way.each_ref().map(String::as_str)) {
                    eprintln!("a cut stays: {error:#}");
                }
            }
        }))
    }

    /// The program is stopped where it is (SIGSTOP), its sockets stay, until the fault is dropped.
    pub(crate) fn pause(&self, host: &str) -> Result<Fault> {
        self.machine(host)?.process.as_ref().with_context(|| format!("nothing runs on {host}"))?.pause()
    }

    /// A caller who GETs from a plain listener of the host.
    pub(crate) fn caller(&self, host: &str, port: u16) -> Result<Caller> {
        let file = Arc::new(self.machine(host)?.namespace.open()?);
        Ok(Arc::new(move |path, silence_max| {
            let ask = || {
                // Only this thread moves, and it ends here.
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter the namespace")?;
                get_within(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path, silence_max)
            };
            thread::scope(|scope| scope.spawn(ask).join().unwrap_or_else(|_| Err(anyhow!("a caller panicked"))))
        }))
    }

    /// The ends of all logs.
    pub(crate) fn log_tails(&self) -> String {
        self.hosts.values().filter_map(|machine| machine.process.as_ref()).map(|process| process.log_tail(20)).collect()
    }

    fn machine(&self, host: &str) -> Result<&Machine> {
        self.hosts.get(host).with_context(|| format!("no host {host}"))
    }

    fn machine_mut(&mut self, host: &str) -> Result<&mut Machine> {
        self.hosts.get_mut(host).with_context(|| format!("no host {host}"))
    }
}

/// Lets the router drop in silence what goes this way, or no longer.
///
/// Not by taking a link down, which both ends would see at once.
fn blackhole(router: &Namespace, verb: &str, way: &[&str]) -> Result<()> {
    router.ip(&[&["rule", verb], way, &["blackhole"]].concat())
}

/// One namespace by its name in iproute2; removed when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn create(role: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    /// Runs `ip` on this namespace.
    fn ip(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], args].concat()).map(drop)
    }

    /// A command that runs inside; the process is the program's own.
    fn command(&self, program: &str, args: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(args.iter().map(AsRef::as_ref));
        command
    }

    fn open(&self) -> Result<File> {
        let path = Path::new(FOLDER).join(&self.name);
        File::open(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("the network namespace {} is left over: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces whose makers are dead, with what still runs in them.
fn remove_stale() -> Result<()> {
    for name in ip(&["netns", "list"])?.lines().filter_map(|line| line.split(' ').next()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_none_or(|pid| Path::new("/proc").join(pid).exists()) {
            continue;
        }
        for pid in ip(&["netns", "pids", name])?.lines() {
            call(kill(pid), b"")?;
        }
        ip(&["netns", "delete", name])?;
    }
    Ok(())
}

fn kill(pid: &str) -> Command {
    let mut command = Command::new("kill");
    command.args(["-KILL", pid]);
    command
}

fn ip(args: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(args);
    let output = call(command, b"")?;
    ensure!(output.code == Some(0), "ip {}: {}", args.join(" "), output.stderr.trim());
    Ok(output.text())
}

/// Shows by doing so that this process may make hosts and cut them.
///
/// # Errors
/// Says what it may not, or what is missing.
pub(crate) fn attempt() -> Result<()> {
    let mut hosts = Namespaces::create(Path::new(FOLDER))?;
    hosts.add("one")?;
    hosts.add("other")?;
    hosts.cut("one", "other").map(drop)
}
