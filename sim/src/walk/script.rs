//! Script: the story that a walk tells, as text that compiles.

use std::sync::{Arc, Mutex, PoisonError};

use crate::moves::Walk;

/// What stands before each line of a story's body: two levels.
const INDENT: &str = "        ";

/// The story that is being told, as text.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<Mutex<String>>);

impl Script {
    /// Adds what was just done.
    pub(super) fn line(&self, code: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in code.lines() {
            text.push_str(INDENT);
            text.push_str(line);
            text.push('\n');
        }
    }

    /// The whole story, with its world.
    pub(super) fn body(&self, walk: &Walk) -> String {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = walk.budget.map(|bytes| format!("config.session_budget = {bytes}; "));
        let streams = walk.streams_max.map(|n| format!("config.streams_max = {n}; "));
        let age = walk.age_max.map(|n| format!("config.session_age_max = Some(secs({n})); "));
        let with = |changes: [&Option<String>; 2]| {
            let changes: String = changes.into_iter().flatten().map(String::as_str).collect();
            if changes.is_empty() { changes } else { format!(".with(|config| {{ {changes}}})") }
        };
        let mut world = format!("    let world = World::new()\n        .seed({})", walk.seed);
        let hub = with([&budget, &streams]);
        if !hub.is_empty() {
            world.push_str(&format!("\n        .hub(|hub| hub{hub})"));
        }
        for place in &walk.places {
            let agents = if place.n_agents > 1 { format!(".agents({})", place.n_agents) } else { String::new() };
            let (name, way, with) = (place.name, place.way.code(), with([&budget, &age]));
            world.push_str(&format!("\n        .cluster(\"{name}\", |c| c.over({way}){agents}.pods(7){with})"));
        }
        world.push_str("\n        .version_1(Nothing(\"walks are drawn with extended peers\"), Nothing(\"walks are drawn with extended peers\"))");
        // What is only held is not named again.
        let words = || text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let is_held = |name: &str| words().filter(|word| *word == name).count() == 1;
        let lines = text.lines().map(|line| {
            let name = line.trim_start().strip_prefix("let ").and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
            match name.filter(|name| is_held(name)) {
                Some(name) => line.replacen(name, &format!("_{name}"), 1) + "\n",
                None => format!("{line}\n"),
            }
        });
        let text: String = lines.collect();
        format!("{world};\n    world.tell(async |s: Story| {{\n{text}{INDENT}Ok(())\n    }});\n")
    }
}
