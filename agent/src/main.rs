//! postern-agent: parse, run, exit code.

use std::process::ExitCode;

use agent::doctor;
use agent::orders::Order;
use host::Host;
use mimalloc::MiMalloc;
use proxy::health;

const PROGRAM: &str = "postern-agent";

/// A request is some hundred small allocations, which this one makes cheaper than the system's. The server keeps the
/// system's, which holds less for an idle watch (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    host::tls::use_provider();
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).peekable();
    if let Some(order) = args.peek().and_then(|first| Order::of(first)) {
        return order.main(args.skip(1));
    }
    if args.peek().is_some_and(|first| doctor::is_asked_for(first)) {
        return doctor::main(args.skip(1), &|name| std::env::var(name).ok());
    }
    if args.next_if(|first| health::is_asked_for(first)).is_some() {
        return health::main(PROGRAM, agent::cli::parse_health(args, &|name| std::env::var(name).ok()));
    }
    if args.next_if(|first| first == "audit").is_some() {
        return proxy::audit::verify(PROGRAM, args);
    }
    let asked = agent::cli::parse(args, &|name| std::env::var(name).ok(), &Host::real());
    proxy::program::main(PROGRAM, asked, |config| config.process, agent::run)
}
