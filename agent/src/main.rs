//! postern-agent: parse, run, exit code.

use std::process::ExitCode;

use host::Host;
use mimalloc::MiMalloc;

/// A request is some hundred small allocations, which this one makes cheaper than the system's. The server keeps the
/// system's, which holds less for an idle watch (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    host::tls::use_provider();
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let asked = agent::cli::parse(args, &|name| std::env::var(name).ok(), &Host::real());
    proxy::program::main("postern-agent", asked, |config| config.process, agent::run)
}
