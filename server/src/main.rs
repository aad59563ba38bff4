//! postern-server: parse, run, exit code.

use std::process::ExitCode;

use host::Host;

fn main() -> ExitCode {
    host::tls::use_provider();
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let asked = server::cli::parse(args, &|name| std::env::var(name).ok(), &Host::real());
    proxy::program::main("postern-server", asked, |config| config.process, server::run)
}
