//! Images: how large they are, what is in them, as whom they run, and how soon the server is ready.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Images, Suite, get, wait_for};

/// What each image is promised to stay under.
const BYTES_MAX: u64 = 20_000_000;

/// A start takes a fraction of a second; an engine on a busy machine takes its time.
const READY_MAX: Duration = Duration::from_secs(20);

/// Starts of which the median is told: odd, and few enough to be done in seconds.
const N_STARTS: usize = 5;

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, images: &Images) {
    for (program, image) in [("postern-server", &images.server), ("postern-agent", &images.agent)] {
        suite.step(&format!("{program} is small and says what it is"), || facts(image));
        suite.step(&format!("{program} has one program and no shell"), || contents(program, image));
    }
    suite.step("the server starts", || starts(&images.server));
}

fn facts(image: &str) -> Result<()> {
    let told = Images::inspect(image)?;
    let bytes = told["Size"].as_u64().context("an image without a size")?;
    eprintln!("image: {image} has {bytes} bytes");
    ensure!(bytes < BYTES_MAX, "{image} has {bytes} bytes");
    let user = told["Config"]["User"].as_str().unwrap_or_default();
    ensure!(user == "65532:65532", "it runs as {user:?}");
    let version = &told["Config"]["Labels"]["org.opencontainers.image.version"];
    ensure!(*version == env!("CARGO_PKG_VERSION"), "its label says version {version}");
    Ok(())
}

fn contents(program: &str, image: &str) -> Result<()> {
    let files = Images::files(image)?;
    let is_program = |line: &&String| line.split_whitespace().next().is_some_and(|mode| mode.contains('x') || mode.contains('s'));
    let programs: Vec<_> =
        files.iter().filter(is_program).map(|line| line.split_whitespace().nth(5).unwrap_or_default()).collect();
    ensure!(programs == [program], "programs in {image}: {programs:?}");
    ensure!(files.iter().any(|line| line.contains("etc/ssl/certs/")), "there are no roots among {files:?}");
    Ok(())
}

/// Told, not judged: how long a start takes is the machine's business too.
fn starts(image: &str) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..N_STARTS {
        let began = Instant::now();
        let (container, address) =
            Images::run(image, &[("CLUSTERS", r#"[{"id":"edge-1","token":"a-token-of-some-length"}]"#)], &[])?;
        let ready = || Ok(get(SocketAddr::from((address, 8080)), "/readyz/self").ok().filter(|answer| answer.status == 200));
        let result = wait_for("the server to be ready", READY_MAX, ready);
        took.push(began.elapsed());
        Images::remove(&container)?;
        result?;
    }
    took.sort();
    eprintln!("start: from `docker run` to /readyz/self the median of {N_STARTS} is {} ms", took[N_STARTS / 2].as_millis());
    Ok(())
}
