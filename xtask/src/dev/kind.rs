//! `cargo xtask dev --kind`: two kind clusters with the images and charts as they ship, made by `postern-pair`.

use std::process::Command;
use std::thread::sleep;

use anyhow::{Result, ensure};

use super::LOOK_EVERY;
use super::child;
use super::stop::Stop;
use crate::image;
use crate::machine::Skips;
use crate::run::step;
use crate::workspace::{cargo, target_dir};

/// Makes the pair and stays until Ctrl-C; `once` leaves after the first request, `down` only removes.
pub(super) fn run(once: bool, down: bool) -> Result<()> {
    let stop = Stop::on_signals()?;
    // Of the whole workspace, as the tests build it, or most dependencies would be compiled twice.
    step("build", || child::finish(cargo(&["build", "--workspace", "--bins"]), &stop))?;
    let folder = target_dir()?;
    let mut pair = Command::new(folder.join("debug/postern-pair"));
    if down {
        pair.arg("--down");
    } else {
        let skips = Skips::default();
        let built = image::for_tests(&skips);
        skips.tell();
        built?;
        pair.args(once.then_some("--once")).arg(folder.join("dev-kind"));
    }
    // In our own group: Ctrl-C reaches it too, and it removes its clusters before it ends, however long that takes.
    let mut pair = pair.spawn()?;
    let mut told = false;
    let status = loop {
        if let Some(status) = pair.try_wait()? {
            break status;
        }
        if stop.asked() && !told {
            told = true;
            eprintln!("removing both clusters");
            child::ask_to_end(&pair);
        }
        sleep(LOOK_EVERY);
    };
    ensure!(told || status.success(), "postern-pair: {status}");
    Ok(())
}
