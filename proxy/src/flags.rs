//! Flags as people write them: one table is the parser, the help text and the reference.
//!
//! Go spelling (`-addr=:8443`, `-addr :8443`, `-insecure`, `-insecure=false`) and GNU spelling (`--addr`) mean the same.
//! The command line wins over the environment, which wins over the default. Nothing stops at the first mistake: all are
//! collected, each with its key, and no value of a flag is echoed unless its reader does so.

mod read;
mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;

pub use read::{
    HostPort, address, count, duration, host_port, log_level, optional, path, positive, readable, secret, secret_file, size,
    switch, text,
};
pub use render::{Page, markdown};

/// One flag of a table.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    name: &'static str,
    value: Option<&'static str>,
    env: Option<&'static str>,
    default: Option<&'static str>,
    help: &'static str,
    is_list: bool,
}

impl Flag {
    /// A flag that takes a value, shown as `value` in the help.
    pub const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value: Some(value), env: None, default: None, help, is_list: false }
    }

    /// A flag that is on when given, unless as `-name=false`.
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, value: None, env: None, default: None, help, is_list: false }
    }

    /// Its name, without dashes.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The text that stands for a flag not given.
    pub const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    /// A flag that may be given more than once; its text is then a line for each.
    pub const fn list(self) -> Self {
        Self { is_list: true, ..self }
    }

    /// The environment variable that is read when the flag is not given; an empty one counts as not set.
    pub const fn env(self, name: &'static str) -> Self {
        Self { env: Some(name), ..self }
    }
}

/// Flags that belong together under one heading of the help.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// In the order of the help.
    pub flags: &'static [Flag],
}

/// One mistake in the configuration: where it stands and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The flag, environment variable or place in a file, as its author knows it.
    pub key: String,
    /// What is wrong, in words that follow the key.
    pub problem: String,
}

impl ConfigError {
    /// A mistake at `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// Every mistake found in one place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", Mistakes(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// The environment as a value: the content of a variable, or `None`.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What was given for the flags of a table, and the mistakes found so far.
///
/// Has no `Debug`: it may hold secrets.
pub struct Values {
    given: BTreeMap<&'static str, Given>,
    /// What is neither a flag nor a flag's value, in order.
    words: Vec<String>,
    errors: Vec<ConfigError>,
}

struct Given {
    text: String,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment(&'static str),
    Default,
}

impl Values {
    /// Reads `args` (without the program's name) and `env` by the table `sections`.
    pub fn parse(sections: &[Section], args: impl IntoIterator<Item = String>, env: Env<'_>) -> Self {
        let mut values = Self { given: BTreeMap::new(), words: Vec::new(), errors: Vec::new() };
        values.take_args(sections, args.into_iter().peekable());
        for flag in flags(sections) {
            let fallback = || {
                let from_env = flag.env.and_then(|name| Some((env(name).filter(|text| !text.is_empty())?, name)));
                match (from_env, flag.default) {
                    (Some((text, name)), _) => Some(Given { text, source: Source::Environment(name) }),
                    (None, Some(text)) => Some(Given { text: text.to_owned(), source: Source::Default }),
                    (None, None) => None,
                }
            };
            if !values.given.contains_key(flag.name)
                && let Some(given) = fallback()
            {
                values.given.insert(flag.name, given);
            }
        }
        values
    }

    /// Stores what `read` makes of a flag's text in `slot`; leaves it alone when there is no text or a wrong one, which
    /// is then among the errors.
    pub fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Result<T, String>, slot: &mut T) {
        if let Some(value) = self.get(name, read) {
            *slot = value;
        }
    }

    /// What `read` makes of a flag's text; `None` when there is none, or a wrong one, which is then among the errors.
    pub fn get<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let given = self.given.get(name)?;
        match read(&given.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fail(name, problem);
                None
            }
        }
    }

    /// Whether the flag stands on the command line or in the environment.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|given| given.source != Source::Default)
    }

    /// Whether the flag's value comes from the environment.
    pub fn is_from_env(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|given| matches!(given.source, Source::Environment(_)))
    }

    /// The key of a flag as its author wrote it: `--name`, or `NAME` of the environment.
    pub fn key(&self, name: &str) -> String {
        match self.given.get(name).map(|given| given.source) {
            Some(Source::Environment(variable)) => variable.to_owned(),
            Some(Source::CommandLine | Source::Default) | None => format!("--{name}"),
        }
    }

    /// Adds a mistake about a flag.
    pub fn fail(&mut self, name: &str, problem: impl Into<String>) {
        self.errors.push(ConfigError::new(self.key(name), problem));
    }

    /// Adds mistakes found elsewhere, in a file say.
    pub fn fail_all(&mut self, errors: impl IntoIterator<Item = ConfigError>) {
        self.errors.extend(errors);
    }

    /// Takes the next word that is no flag.
    pub fn next_word(&mut self) -> Option<String> {
        if self.words.is_empty() { None } else { Some(self.words.remove(0)) }
    }

    /// All mistakes, or `value` when there are none.
    ///
    /// # Errors
    /// Every mistake found, those of the command line first. Words that nobody took are mistakes too.
    pub fn finish<T>(mut self, value: T) -> Result<T, Vec<ConfigError>> {
        if !self.words.is_empty() {
            let problem = format!("{} too many; a value stands as -name=value, a switch as -name=false", self.words.len());
            // The words themselves may be a secret that lost its flag.
            self.errors.insert(0, ConfigError::new("arguments that are no flags", problem));
        }
        if self.errors.is_empty() { Ok(value) } else { Err(self.errors) }
    }

    fn take_args(&mut self, sections: &[Section], mut args: Peekable<impl Iterator<Item = String>>) {
        while let Some(arg) = args.next() {
            let Some(stripped) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|rest| !rest.is_empty()) else {
                if arg == "--" {
                    self.words.extend(args);
                    return;
                }
                self.words.push(arg);
                continue;
            };
            let (name, inline) = match stripped.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (stripped, None),
            };
            // Go's flag package takes `-h` for help.
            let name = if name == "h" { "help" } else { name };
            let Some(flag) = flags(sections).find(|flag| flag.name == name) else {
                let problem = match render::suggestion(sections, name) {
                    Some(other) => format!("no such flag, did you mean --{other}?"),
                    None => "no such flag, see --help".to_owned(),
                };
                self.errors.push(ConfigError::new(format!("--{name}"), problem));
                continue;
            };
            let text = match (inline, flag.value) {
                (Some(text), _) => Some(text),
                (None, None) => Some("true".to_owned()),
                // A flag is no value: it may hold a secret, and a mistake shows the value.
                (None, Some(_)) => args.next_if(|next| !is_flag(sections, next)),
            };
            match text {
                None => self.errors.push(ConfigError::new(format!("--{name}"), "needs a value")),
                Some(text) => {
                    let before = self.given.get(flag.name).filter(|_| flag.is_list);
                    let text = before.map(|before| format!("{}\n{text}", before.text)).unwrap_or(text);
                    let given = Given { text, source: Source::CommandLine };
                    if self.given.insert(flag.name, given).is_some() && !flag.is_list {
                        self.errors.push(ConfigError::new(format!("--{name}"), "given more than once"));
                    }
                }
            }
        }
    }
}

/// Whether `arg` is one of the flags, with or without a value.
fn is_flag(sections: &[Section], arg: &str) -> bool {
    let Some(stripped) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { return false };
    let name = stripped.split_once('=').map_or(stripped, |(name, _)| name);
    flags(sections).any(|flag| flag.name == name)
}

fn flags(sections: &[Section]) -> impl Iterator<Item = &Flag> {
    sections.iter().flat_map(|section| section.flags)
}

/// Mistakes as one text: a count, then one line each.
pub struct Mistakes<'a>(pub &'a [ConfigError]);

impl fmt::Display for Mistakes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => write!(f, "configuration error: {only}"),
            all => {
                write!(f, "{} configuration errors:", all.len())?;
                all.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
