//! The table of flags as a help text and as Markdown.

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

use super::{Flag, Section};

/// Columns of the help text, fixed so that it reads the same everywhere.
const HELP_WIDTH: usize = 100;

/// A help page: what stands around the table of flags.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The program or subcommand, as typed.
    pub name: &'static str,
    /// One paragraph on what it does.
    pub about: &'static str,
    /// What follows the name on the usage line.
    pub usage: &'static str,
    /// What comes after the flags: examples, notes.
    pub after: &'static str,
}

impl Page {
    /// The whole help text.
    pub fn help(&self, sections: &[Section]) -> String {
        let usage = format!("{} {}", self.name, self.usage);
        let table = command(sections).about(self.about).override_usage(usage).render_help();
        // Examples are not wrapped: people copy them.
        format!("{table}\n{}", self.after)
    }
}

/// The table as Markdown, a heading and a table per section.
pub fn markdown(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        text += &format!("### {}\n\n| flag | environment | default | meaning |\n|---|---|---|---|\n", section.title);
        for flag in section.flags {
            let name = match flag.value {
                Some(value) => format!("`--{} {value}`", flag.name),
                None => format!("`--{}`", flag.name),
            };
            let code = |text: Option<&str>| text.map(|text| format!("`{text}`")).unwrap_or_default();
            let help = flag.help.replace('|', "\\|");
            text += &format!("| {name} | {} | {} | {help} |\n", code(flag.env), code(flag.default));
        }
        text.push('\n');
    }
    text
}

/// The flag that somebody who wrote `name` may have meant.
pub(super) fn suggestion(sections: &[Section], name: &str) -> Option<String> {
    let error = command(sections).try_get_matches_from(["", &format!("--{name}")]).err()?;
    let ContextValue::String(arg) = error.get(ContextKind::SuggestedArg)? else { return None };
    Some(arg.trim_start_matches('-').to_owned())
}

fn command(sections: &[Section]) -> Command {
    let arg = |flag: &Flag, title: &'static str| {
        let mut help = flag.help.to_owned();
        if let Some(default) = flag.default {
            help += &format!(" [default: {default}]");
        }
        if let Some(env) = flag.env {
            help += &format!(" [env: {env}]");
        }
        let arg = Arg::new(flag.name).long(flag.name).help(help).help_heading(title);
        match flag.value {
            Some(value) => arg.value_name(value).action(ArgAction::Set),
            None => arg.action(ArgAction::SetTrue),
        }
    };
    Command::new("postern")
        .term_width(HELP_WIDTH)
        .disable_help_flag(true)
        .args(sections.iter().flat_map(|section| section.flags.iter().map(|flag| arg(flag, section.title))))
}
