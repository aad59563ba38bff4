//! What a story does to its world. Faults that last are guards: dropping one undoes it.

use super::Story;
use crate::fabric::Wan;

/// A fault that lasts; dropping it undoes it.
#[must_use = "a fault that is dropped at once never was"]
pub struct Fault {
    story: Story,
    words: String,
    undo: Option<Undo>,
}

type Undo = Box<dyn FnOnce(&Story) + Send>;

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.story.note(&self.words);
            undo(&self.story);
        }
    }
}

impl Story {
    /// Nothing passes between two places and nobody is told, until healed.
    pub fn cut(&self, a: &str, b: &str) -> Fault {
        self.note(&format!("cut {a} {b}"));
        self.fabric().cut(a, b);
        let (a, b) = (a.to_owned(), b.to_owned());
        self.fault(format!("heal {a} {b}"), move |story| story.fabric().heal(&a, &b))
    }

    /// All between two places is late and nothing lost, until released.
    pub fn stall(&self, a: &str, b: &str) -> Fault {
        self.note(&format!("stall {a} {b}"));
        self.fabric().stall(a, b);
        let (a, b) = (a.to_owned(), b.to_owned());
        self.fault(format!("release {a} {b}"), move |story| story.fabric().release(&a, &b))
    }

    /// Another way lies between two places, until it is over.
    pub fn degrade(&self, a: &str, b: &str, wan: Wan) -> Fault {
        self.note(&format!("degrade {a} {b}"));
        let before = self.fabric().degrade(a, b, wan);
        let (a, b) = (a.to_owned(), b.to_owned());
        self.fault(format!("restore {a} {b}"), move |story| {
            story.fabric().degrade(&a, &b, before);
        })
    }

    /// The machine refuses new connections, until it accepts again.
    pub fn refuse(&self, machine: &str) -> Fault {
        self.note(&format!("refuse {machine}"));
        self.fabric().refuse(machine);
        let machine = machine.to_owned();
        self.fault(format!("accept {machine}"), move |story| story.fabric().accept(&machine))
    }

    /// Nothing on the machine is polled, its sockets stay, until resumed.
    pub fn pause(&self, machine: &str) -> Fault {
        self.note(&format!("pause {machine}"));
        self.machine(machine).pause();
        let machine = machine.to_owned();
        self.fault(format!("resume {machine}"), move |story| story.machine(&machine).resume())
    }

    /// Both ends of every connection between two places get a reset.
    pub fn reset(&self, a: &str, b: &str) {
        self.note(&format!("reset {a} {b}"));
        self.fabric().reset(a, b);
    }

    /// The program ends at once, its peers get resets.
    pub fn crash(&self, machine: &str) {
        self.note(&format!("crash {machine}"));
        self.machine(machine).crash();
    }

    /// The machine loses its power: nobody is told.
    pub fn vanish(&self, machine: &str) {
        self.note(&format!("vanish {machine}"));
        self.machine(machine).vanish();
    }

    /// Starts the machine's program after a crash, a power loss, an ended drain, or for the first time.
    pub fn restart(&self, machine: &str) {
        self.note(&format!("restart {machine}"));
        self.machine(machine).start();
    }

    /// Asks the program to finish what runs and end (SIGTERM).
    pub fn drain(&self, machine: &str) {
        self.note(&format!("drain {machine}"));
        self.machine(machine).drain();
    }

    /// Nothing more can be appended to files of the machine, until there is room again.
    pub fn fill_disk(&self, machine: &str) -> Fault {
        self.note(&format!("fill the disk of {machine}"));
        self.machine(machine).disk().set_full(true);
        let machine = machine.to_owned();
        self.fault(format!("make room on {machine}"), move |story| story.machine(&machine).disk().set_full(false))
    }

    /// Moves the wall clock of a machine; negative is into the past.
    pub fn skew(&self, machine: &str, seconds: i64) {
        self.note(&format!("skew {machine} {seconds:+}s"));
        self.machine(machine).disk().skew(seconds * 1000);
    }

    /// Writes a file of a machine.
    pub fn write_file(&self, machine: &str, path: &str, content: &str) {
        self.note(&format!("write {machine}:{path}"));
        self.machine(machine).disk().write(path, content.as_bytes());
    }

    pub(super) fn fault(&self, words: String, undo: impl FnOnce(&Self) + Send + 'static) -> Fault {
        Fault { story: self.clone(), words, undo: Some(Box::new(undo)) }
    }
}
