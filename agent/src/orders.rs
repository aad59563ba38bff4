//! Orders to a running agent by its admin socket: freeze, unfreeze, status. Both ends.
//!
//! One line each way: the order's word, then the word `done` or `failed` and what is to be told.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use host::{Connection, Drain, Host, Listen, LogLevel, Workers};
use proxy::flags::{self, ConfigError, Flag, Page, Section, Values};
use proxy::program::{self, Command, ProcessConfig, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::guard::Guard;

/// How long an order may take: a line, and a write that a slow disk holds up. Orders are taken one by one, so whoever
/// connects and says nothing holds up others for as long.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);

/// Longer is no line of ours.
const LINE_BYTES_MAX: u64 = 1024;

/// Where nobody answers, in the words of sysexits.h.
const EX_UNAVAILABLE: u8 = 69;

/// Something could not be written, in the same words.
const EX_IOERR: u8 = 74;

/// Not permitted, in the same words.
const EX_NOPERM: u8 = 77;

const FLAGS: &[Section] = &[
    Section { title: "Orders", flags: &[Flag::value("state-dir", "DIR", "The --state-dir of the agent that is meant")] },
    Section { title: "General", flags: &[Flag::switch("help", "Print this text and exit")] },
];

const PAGE: Page = Page {
    name: "postern-agent",
    about: "Gives an order to a running agent that has a state directory.",
    usage: "freeze|unfreeze|status --state-dir DIR",
    after: "freeze refuses everything at once and ends what runs, also after a restart; unfreeze ends that; status says what keeps the
agent frozen. A freeze in the --guard file is independent: frozen by either is frozen.

Exit codes: 0 done, 64 configuration, 69 no agent takes the order, 74 not written down, 77 not permitted.
",
};

/// What an agent can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Refuse everything, and end what runs.
    Freeze,
    /// End a freeze by order.
    Unfreeze,
    /// Say who keeps it frozen.
    Status,
}

/// An order and where the agent is that it is for.
#[derive(Debug)]
struct Task {
    order: Order,
    socket: String,
}

impl Order {
    /// The order that a word means.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Freeze, Self::Unfreeze, Self::Status].into_iter().find(|order| order.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Status => "status",
        }
    }

    /// Gives the order to the agent that `args` name, tells what came of it, and is the end of the process.
    pub fn main(self, args: impl IntoIterator<Item = String>) -> ExitCode {
        let quiet = ProcessConfig { log_level: LogLevel::Error, workers: Workers::Exactly(1) };
        program::main("postern-agent", self.read(args), move |_| quiet, run)
    }

    fn read(self, args: impl IntoIterator<Item = String>) -> Result<Command<Task>, Vec<ConfigError>> {
        let mut values = Values::parse(FLAGS, args, &|_| None);
        if values.get("help", flags::switch) == Some(true) {
            return Ok(Command::Print(PAGE.help(FLAGS)));
        }
        if !values.is_given("state-dir") {
            values.fail("state-dir", "is needed: the one of the agent that is meant");
        }
        let dir = values.get("state-dir", flags::path).unwrap_or_default();
        let task = Task { order: self, socket: socket_in(&dir) };
        values.finish(Command::Run { config: Box::new(task), warnings: Vec::new() })
    }
}

/// The admin socket of the agent with this state directory.
pub(crate) fn socket_in(state_dir: &str) -> String {
    format!("{state_dir}/admin.sock")
}

async fn run(task: Task, host: Host, _: Drain) -> Result<(), StartError> {
    let told = tokio::time::timeout(2 * ORDER_TIME_MAX, give(&task, &host)).await;
    let failed = |why: String, exit_code| StartError::Failed { why, exit_code };
    let answer = match told {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let exit_code = if error.kind() == io::ErrorKind::PermissionDenied { EX_NOPERM } else { EX_UNAVAILABLE };
            return Err(failed(format!("no agent takes orders at {}: {error}", task.socket), exit_code));
        }
        Err(_) => return Err(failed(format!("no answer from the agent at {}", task.socket), EX_UNAVAILABLE)),
    };
    match answer.split_once(' ') {
        Some(("done", text)) => {
            // A reader that went away wants no more of it.
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            Ok(())
        }
        Some(("failed", text)) => Err(failed(text.trim_end().to_owned(), EX_IOERR)),
        Some(_) | None => Err(failed(format!("what answers at {} is no agent", task.socket), EX_UNAVAILABLE)),
    }
}

async fn give(task: &Task, host: &Host) -> io::Result<String> {
    let mut agent = host.connect_local(&task.socket).await?;
    agent.write_all(format!("{}\n", task.order.word()).as_bytes()).await?;
    agent.shutdown().await?;
    line(agent).await
}

/// Takes orders one by one; never ends.
pub(crate) async fn take(listener: &dyn Listen, guard: &Arc<Guard>) {
    loop {
        match listener.accept().await {
            Ok(connection) => match tokio::time::timeout(ORDER_TIME_MAX, serve(connection, guard)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an order broke off"),
                Err(_) => tracing::debug!("an order took too long"),
            },
            Err(error) => {
                tracing::warn!(%error, "an order could not be taken");
                tokio::time::sleep(ORDER_TIME_MAX).await;
            }
        }
    }
}

async fn serve(mut connection: Connection, guard: &Arc<Guard>) -> io::Result<()> {
    let asked = line(&mut connection).await?;
    let answer = match Order::of(asked.trim_end()) {
        Some(order) => obey(order, guard),
        None => "failed no such order".to_owned(),
    };
    connection.write_all(format!("{answer}\n").as_bytes()).await?;
    connection.shutdown().await
}

fn obey(order: Order, guard: &Guard) -> String {
    match order {
        Order::Freeze => match guard.freezer.freeze() {
            Ok(()) => format!("done {}", guard.frozen_by()),
            Err(error) => format!("failed frozen, but only until the agent ends, since that cannot be written down: {error}"),
        },
        Order::Unfreeze => match guard.freezer.unfreeze() {
            Ok(()) => format!("done {}", guard.frozen_by()),
            Err(error) => format!("failed still frozen, since the order cannot be taken back: {error}"),
        },
        Order::Status => format!("done {}", guard.frozen_by()),
    }
}

async fn line(connection: impl tokio::io::AsyncRead + Unpin) -> io::Result<String> {
    let mut text = String::new();
    connection.take(LINE_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::config::AgentConfig;

    #[tokio::test]
    async fn a_freeze_by_order_counts_at_once_and_outlives_the_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let (host, guard) = agent(&dir);
        let listener = host.listen_local(&socket_in(&path(&dir))).expect("listening");
        for (order, expected) in [
            (Order::Status, "done not frozen\n"),
            (Order::Freeze, "done frozen by order\n"),
            (Order::Freeze, "done frozen by order\n"),
            (Order::Status, "done frozen by order\n"),
        ] {
            assert_eq!(told(&host, &dir, order, &*listener, &guard).await, expected);
        }
        drop((listener, guard));

        let (host, guard) = agent(&dir);
        let listener = host.listen_local(&socket_in(&path(&dir))).expect("listening again");
        assert_eq!(told(&host, &dir, Order::Status, &*listener, &guard).await, "done frozen by order\n");
        assert_eq!(told(&host, &dir, Order::Unfreeze, &*listener, &guard).await, "done not frozen\n");
        assert_eq!(told(&host, &dir, Order::Unfreeze, &*listener, &guard).await, "done not frozen\n");
        drop(guard);
        assert_eq!(agent(&dir).1.frozen_by().to_string(), "not frozen");
    }

    #[tokio::test]
    async fn who_cannot_tell_whether_it_was_frozen_is() {
        let dir = tempfile::tempdir().expect("a folder");
        // A folder where the file should be: it is there, and cannot be read, written or removed.
        std::fs::create_dir(dir.path().join("frozen")).expect("made");
        let (host, guard) = agent(&dir);
        assert_eq!(guard.frozen_by().to_string(), "frozen by order");
        let listener = host.listen_local(&socket_in(&path(&dir))).expect("listening");
        let answer = told(&host, &dir, Order::Unfreeze, &*listener, &guard).await;
        assert!(answer.starts_with("failed still frozen"), "{answer}");
        let answer = told(&host, &dir, Order::Freeze, &*listener, &guard).await;
        assert!(answer.starts_with("failed frozen, but only until the agent ends"), "{answer}");
        assert_eq!(guard.frozen_by().to_string(), "frozen by order");
    }

    #[tokio::test]
    async fn an_order_that_nobody_takes_says_so_with_an_exit_code() {
        let dir = tempfile::tempdir().expect("a folder");
        let task = Task { order: Order::Freeze, socket: socket_in(&path(&dir)) };
        let (_, drain) = host::DrainSwitch::new();
        let error = run(task, Host::real(), drain).await.expect_err("nobody is there");
        assert_eq!(error.exit_code(), EX_UNAVAILABLE);
        assert!(error.to_string().starts_with("no agent takes orders at "), "{error}");
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        let (host, guard) = agent(&dir);
        let listener = host.listen_local(&socket_in(&path(&dir))).expect("listening");
        let nonsense = async {
            let mut socket = host.connect_local(&socket_in(&path(&dir))).await?;
            socket.write_all(b"melt\n").await?;
            socket.shutdown().await?;
            line(socket).await
        };
        let answer = tokio::select! {
            biased;
            () = take(&*listener, &guard) => unreachable!("it never ends"),
            answer = nonsense => answer.expect("an answer"),
        };
        assert_eq!(answer, "failed no such order\n");
        assert_eq!(told(&host, &dir, Order::Status, &*listener, &guard).await, "done not frozen\n");
    }

    #[test]
    fn an_order_needs_to_know_for_whom_it_is() {
        assert_eq!(["freeze", "unfreeze", "status", "serve"].map(|word| Order::of(word).is_some()), [true, true, true, false]);
        let mistakes = Order::Freeze.read(["now".to_owned()]).expect_err("mistakes");
        assert!(mistakes.iter().any(|mistake| mistake.key == "--state-dir"), "{mistakes:?}");
    }

    #[test]
    fn an_order_says_how_it_is_given_to_who_asks() {
        for asked in ["--help", "-h"] {
            let Ok(Command::Print(text)) = Order::Freeze.read([asked.to_owned()]) else { panic!("{asked} brings no help") };
            assert!(text.contains("postern-agent freeze|unfreeze|status --state-dir DIR"), "{text}");
        }
    }

    async fn told(host: &Host, dir: &TempDir, order: Order, listener: &dyn Listen, guard: &Arc<Guard>) -> String {
        let task = Task { order, socket: socket_in(&path(dir)) };
        tokio::select! {
            biased;
            () = take(listener, guard) => unreachable!("it never ends"),
            answer = give(&task, host) => answer.expect("an answer"),
        }
    }

    fn agent(dir: &TempDir) -> (Host, Arc<Guard>) {
        let host = Host::real();
        let mut config = AgentConfig::new("wss://hub.example".parse().expect("a URL"), secrecy::SecretString::from("hush"));
        config.state_dir = Some(path(dir));
        let guard = Guard::new(&config, &host, &mut Registry::default()).expect("a good configuration");
        (host, Arc::new(guard))
    }

    fn path(dir: &TempDir) -> String {
        dir.path().to_str().expect("a path of text").to_owned()
    }
}
