//! A walk under way: moves are made, the model is asked what to expect, and what was said is kept as a story's text.

mod claims;
mod script;
mod shrink;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::argocd::ArgoCd;
use crate::errands::Running;
use crate::model::{Beliefs, Model, State};
use crate::moves::{Blow, Fault, Move, Program, Walk, Way};
use crate::story::{self, Story, millis};
use crate::trace::Trace;

use script::Script;
pub use shrink::{Failed, find};

/// A claim that was false on a walk.
#[derive(Debug)]
pub struct Finding {
    /// Which claim, without names and numbers: what makes two findings one.
    pub kind: &'static str,
    /// What was found.
    pub claim: String,
    /// The claim as a story makes it.
    code: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.claim)
    }
}

impl std::error::Error for Finding {}

/// What became of a walk.
pub struct Told {
    /// The false claim, if any, with its kind.
    pub false_claim: Option<(String, String)>,
    /// What was done, as the text of a story.
    pub body: String,
    /// The transcript.
    pub trace: Trace,
}

/// Goes a walk from end to end.
pub fn go(walk: &Walk, beliefs: Beliefs) -> Told {
    let script = Script::default();
    let kept = script.clone();
    let (result, trace) = walk.world().play(async move |s: Story| {
        let mut walker = Walker::new(s, walk, beliefs, kept);
        let walked = walker.walk().await;
        if let Err(finding) = &walked
            && let Some(finding) = finding.downcast_ref::<Finding>()
        {
            walker.script.line(&finding.code);
        }
        walked
    });
    let false_claim = result.err().map(|failure| {
        let kind = failure.claim().downcast_ref::<Finding>().map(|finding| finding.kind.to_owned());
        let words = format!("{:#}", failure.claim());
        // Other claims are known by their words, whatever numbers are in them.
        let of_words = || words.chars().filter(|c| c.is_alphabetic() || *c == ' ').take(40).collect();
        (kind.unwrap_or_else(of_words), words)
    });
    Told { false_claim, body: script.body(walk), trace }
}

/// Who goes the walk.
struct Walker<'a> {
    s: Story,
    walk: &'a Walk,
    model: Model,
    beliefs: Beliefs,
    script: Script,
    argocd: ArgoCd,
    /// What holds the faults up, and their names in the text.
    faults: BTreeMap<Fault, (story::Fault, String)>,
    errands: Vec<Begun>,
    /// Writes that ended, to be counted when nothing is on its way any more.
    writes: Vec<Written>,
    /// Counts the things that have a name in the text.
    n_names: usize,
    says_argocd: bool,
}

/// Work that runs.
struct Begun {
    n: usize,
    place: usize,
    reach: crate::model::Reach,
    n_changes: u64,
    running: Running,
}

/// A POST that ended, or was left.
struct Written {
    n: usize,
    place: usize,
    served: bool,
    told_to_repeat: bool,
}

impl<'a> Walker<'a> {
    fn new(s: Story, walk: &'a Walk, beliefs: Beliefs, script: Script) -> Self {
        let (model, argocd) = (Model::new(walk, beliefs), s.argocd());
        let (faults, errands, writes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { s, walk, model, beliefs, script, argocd, faults, errands, writes, n_names: 0, says_argocd: false }
    }

    async fn walk(&mut self) -> anyhow::Result<()> {
        for one in &self.walk.moves {
            self.make(*one).await?;
            self.harvest()?;
        }
        self.heal_all().await?;
        self.settle().await
    }

    async fn make(&mut self, one: Move) -> anyhow::Result<()> {
        match one {
            Move::Pass { ms } => self.pass(millis(ms)).await,
            Move::Look => self.look().await?,
            Move::Begin(fault) => self.begin(fault),
            Move::End(fault) => self.end(fault),
            Move::Strike(blow) => self.strike(blow),
            Move::Start(errand) => {
                self.n_names += 1;
                let n = self.n_names;
                let place = self.walk.places.iter().position(|place| place.name == errand.cluster);
                let Some(place) = place else { return Ok(()) };
                if !self.says_argocd {
                    self.says_argocd = true;
                    self.say("let argocd = s.argocd();");
                }
                self.say(&format!("let errand_{n} = {}.start({n}, &s, &argocd);", errand.code()));
                let (reach, n_changes) = (self.model.reach(place), self.model.n_changes(place));
                let running = errand.start(n, &self.s, &self.argocd);
                self.errands.push(Begun { n, place, reach, n_changes, running });
            }
            Move::Cancel { nth } if !self.errands.is_empty() => {
                let begun = self.errands.remove(nth % self.errands.len());
                self.say(&format!("drop(errand_{});", begun.n));
                self.leave(begun);
            }
            Move::Cancel { .. } => {}
        }
        Ok(())
    }

    async fn pass(&self, time: Duration) {
        self.say(&format!("s.pass(millis({})).await;", time.as_millis()));
        self.s.pass(time).await;
    }

    fn begin(&mut self, fault: Fault) {
        if !self.model.begin(fault) {
            return;
        }
        self.n_names += 1;
        let s = &self.s;
        let (word, guard, code) = match fault {
            Fault::Cut { place } => ("cut", s.cut("hub", self.name(place)), format!("s.cut(\"hub\", \"{}\")", self.name(place))),
            Fault::Stall { place } => {
                ("stall", s.stall("hub", self.name(place)), format!("s.stall(\"hub\", \"{}\")", self.name(place)))
            }
            Fault::Degrade { place, to } => {
                let (name, way) = (self.name(place), Way::ALL[to]);
                ("worse", s.degrade("hub", name, way.wan()), format!("s.degrade(\"hub\", \"{name}\", {})", way.code()))
            }
            Fault::RefuseHub | Fault::RefuseApi { .. } => {
                let machine = self.machine(fault.program());
                ("refusal", s.refuse(&machine), format!("s.refuse(\"{machine}\")"))
            }
            Fault::PauseHub | Fault::PauseAgent { .. } | Fault::PauseApi { .. } => {
                let machine = self.machine(fault.program());
                ("pause", s.pause(&machine), format!("s.pause(\"{machine}\")"))
            }
            Fault::Throttle { place } => {
                let name = self.name(place);
                ("throttling", s.apiserver(name).throttle(), format!("s.apiserver(\"{name}\").throttle()"))
            }
        };
        let name = format!("{word}_{}", self.n_names);
        self.say(&format!("let {name} = {code};"));
        self.faults.insert(fault, (guard, name));
    }

    fn end(&mut self, fault: Fault) {
        if !self.model.end(fault, self.walk) {
            return;
        }
        if let Some((guard, name)) = self.faults.remove(&fault) {
            self.say(&format!("drop({name});"));
            drop(guard);
        }
    }

    fn strike(&mut self, blow: Blow) {
        // What drains is not started again before it has ended.
        if let Blow::Restart(program) = blow
            && self.model.state(program) == Some(State::Draining)
            && !self.s.machine(&self.machine(program)).tasks().is_empty()
        {
            return;
        }
        if !self.model.strike(blow) {
            return;
        }
        let s = self.s.clone();
        match blow {
            Blow::Reset { place } => {
                self.say(&format!("s.reset(\"hub\", \"{}\");", self.name(place)));
                s.reset("hub", self.name(place));
            }
            Blow::Crash(program) => s.crash(&self.said("crash", program)),
            Blow::Drain(program) => s.drain(&self.said("drain", program)),
            Blow::Vanish(program) => {
                if program == Program::Hub {
                    self.forget_callers();
                }
                s.vanish(&self.said("vanish", program));
            }
            Blow::Restart(program) => s.restart(&self.said("restart", program)),
            Blow::Skew { program, seconds } => {
                let machine = self.machine(program);
                self.say(&format!("s.skew(\"{machine}\", {seconds});"));
                s.skew(&machine, seconds);
            }
            Blow::Compact { place } => {
                self.say(&format!("s.api(\"{}\").compact();", self.name(place)));
                s.note(&format!("compact {}", self.name(place)));
                s.api(self.name(place)).compact();
            }
            Blow::Beat { place } => {
                self.say(&format!("s.beat(\"{}\");", self.name(place)));
                s.beat(self.name(place));
            }
        }
    }

    /// Nobody tells callers that a hub lost its power, and these here have no timeouts: they leave.
    fn forget_callers(&mut self) {
        for begun in std::mem::take(&mut self.errands) {
            self.say(&format!("drop(errand_{});", begun.n));
            self.leave(begun);
        }
        if self.says_argocd {
            self.say("let argocd = s.argocd();");
        }
        self.argocd = self.s.argocd();
    }

    fn said(&self, verb: &str, program: Program) -> String {
        let machine = self.machine(program);
        self.say(&format!("s.{verb}(\"{machine}\");"));
        machine
    }

    fn say(&self, code: &str) {
        self.script.line(code);
    }

    fn name(&self, place: usize) -> &'static str {
        self.walk.places[place].name
    }

    fn machine(&self, program: Program) -> String {
        match program {
            Program::Hub => "hub/server".to_owned(),
            Program::Api { place } => format!("{}/api", self.name(place)),
            Program::Agent { place, agent: 0 } => format!("{}/agent", self.name(place)),
            Program::Agent { place, agent } => format!("{}/agent-{}", self.name(place), agent + 1),
        }
    }
}

impl Fault {
    /// The program that it befalls; the hub if it befalls a link.
    fn program(self) -> Program {
        match self {
            Self::Cut { .. } | Self::Stall { .. } | Self::Degrade { .. } | Self::RefuseHub | Self::PauseHub => Program::Hub,
            Self::PauseAgent { place, agent } => Program::Agent { place, agent },
            Self::RefuseApi { place } | Self::PauseApi { place } | Self::Throttle { place } => Program::Api { place },
        }
    }
}
