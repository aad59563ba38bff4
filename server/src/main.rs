//! postern-server: parse, run, exit code.

use std::process::ExitCode;

use host::Host;
use proxy::health;
use server::check;

const PROGRAM: &str = "postern-server";

fn main() -> ExitCode {
    host::tls::use_provider();
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).peekable();
    if args.peek().is_some_and(|first| check::is_asked_for(first)) {
        return check::main(args.skip(1), &|name| std::env::var(name).ok());
    }
    if args.next_if(|first| health::is_asked_for(first)).is_some() {
        return health::main(PROGRAM, server::cli::parse_health(args, &|name| std::env::var(name).ok(), &Host::real()));
    }
    if args.next_if(|first| first == "audit").is_some() {
        return proxy::audit::verify(PROGRAM, args);
    }
    let asked = server::cli::parse(args, &|name| std::env::var(name).ok(), &Host::real());
    proxy::program::main(PROGRAM, asked, |config| config.process, server::run)
}
