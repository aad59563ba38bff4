//! What is shipped: the images, and the charts on two clusters, under the caller that plays Argo CD's part.
//!
//! One scene for all suites, because making two clusters is what takes the time. Without `E2E_ALL=1` a selection runs.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "drives real clusters in real time"
)]

mod argocd;
mod contact;
mod images;
mod kills;
mod policies;
mod registration;
mod rotation;
mod streams;
mod upgrades;

use anyhow::Result;
use e2e::{Names, Shipped, Suite, requirement};

#[test]
fn images_are_small_start_at_once_and_have_no_shell() {
    let (Some(images), Some(())) = (requirement::images(), requirement::docker()) else { return };
    let mut suite = Suite::new();
    images::run(&mut suite, &images);
    suite.finish(String::new);
}

#[test]
fn what_is_shipped_works_on_two_clusters() {
    let (Some(kubectl), Some(helm)) = (requirement::kubectl(), requirement::helm()) else { return };
    let (Some(clusters), Some(images)) = (requirement::clusters(), requirement::images()) else { return };
    let tell = |step: &str| eprintln!("made: {step}");
    let names = argocd::names(Names::of_this_process());
    let shipped = Shipped::prepare(&clusters, (&kubectl, &helm), (names, images), &tell);
    let shipped = shipped.unwrap_or_else(|error| panic!("the scene could not be set: {error:#}"));
    let mut stage = Stage { suite: Suite::new(), shipped };
    let all = requirement::everything();
    if contact::run(&mut stage, all) {
        streams::run(&mut stage, all);
        upgrades::run(&mut stage);
        if all {
            policies::run(&mut stage);
            rotation::run(&mut stage);
            kills::run(&mut stage);
            registration::run(&mut stage);
            argocd::run(&mut stage);
        }
        upgrades::end(&mut stage);
    }
    stage.suite.finish(String::new);
}

/// Two clusters, and the steps that were taken on them.
struct Stage {
    suite: Suite,
    shipped: Shipped,
}

impl Stage {
    /// A step; what may say why it failed is gathered at once, before later steps change it.
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Shipped) -> Result<()>) {
        let shipped = &mut self.shipped;
        self.suite.step(name, || witness(name, shipped, run));
    }

    /// A step that others stand on; tells whether they can.
    fn must(&mut self, name: &str, run: impl FnOnce(&mut Shipped) -> Result<()>) -> bool {
        let shipped = &mut self.shipped;
        self.suite.must(name, || witness(name, shipped, run))
    }
}

fn witness(name: &str, shipped: &mut Shipped, run: impl FnOnce(&mut Shipped) -> Result<()>) -> Result<()> {
    let result = run(shipped);
    if result.is_err() {
        match shipped.gather(name) {
            Ok(folder) => eprintln!("evidence: {}", folder.display()),
            Err(error) => eprintln!("no evidence: {error:#}"),
        }
    }
    result
}
