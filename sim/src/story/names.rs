//! What a story does to names and resolvers.

use super::Story;
use super::misfortunes::Fault;

impl Story {
    /// The resolver of a place says that there is no such name, until it is found again.
    pub fn lose_name(&self, place: &str, name: &str) -> Fault {
        self.note(&format!("lose name {name} at {place}"));
        self.fabric().lose_name(place, name);
        let (place, name) = (place.to_owned(), name.to_owned());
        self.fault(format!("find name {name} at {place}"), move |story| story.fabric().find_name(&place, &name))
    }

    /// The resolver of a place answers nothing, until it does again.
    pub fn mute_resolver(&self, place: &str) -> Fault {
        self.note(&format!("mute resolver of {place}"));
        self.fabric().mute_resolver(place);
        let place = place.to_owned();
        self.fault(format!("unmute resolver of {place}"), move |story| story.fabric().unmute_resolver(&place))
    }

    /// The name leads to other machines or addresses in a place, until it is moved back. Nobody lives at 192.0.2.x, and
    /// no router says so.
    pub fn move_name(&self, place: &str, name: &str, targets: &[&str]) -> Fault {
        self.note(&format!("move name {name} at {place} to {}", targets.join(" ")));
        let before = self.fabric().add_name(place, name, targets);
        let (place, name) = (place.to_owned(), name.to_owned());
        self.fault(format!("move name {name} at {place} back"), move |story| match before {
            Some(before) => {
                let before: Vec<&str> = before.iter().map(String::as_str).collect();
                story.fabric().add_name(&place, &name, &before);
            }
            None => story.fabric().remove_name(&place, &name),
        })
    }
}
