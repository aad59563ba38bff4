//! postern-server: parse, run, exit code.

use std::process::ExitCode;

use host::Host;
use server::check;

fn main() -> ExitCode {
    host::tls::use_provider();
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).peekable();
    if args.peek().is_some_and(|first| check::is_asked_for(first)) {
        return check::main(args.skip(1), &|name| std::env::var(name).ok());
    }
    if args.next_if(|first| first == "audit").is_some() {
        return proxy::audit::verify("postern-server", args);
    }
    let asked = server::cli::parse(args, &|name| std::env::var(name).ok(), &Host::real());
    proxy::program::main("postern-server", asked, |config| config.process, server::run)
}
