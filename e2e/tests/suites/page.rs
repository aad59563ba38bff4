//! The page of clusters in a real browser: what it looks like, how it is used without a mouse, and that nobody scripts it.

mod fleet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Browser, Suite, wait_for};
use serde_json::{Value, json};

use fleet::{ApiServer, Fleet};

/// What has changed is on the page within this.
const SHOWN_MAX: Duration = Duration::from_secs(15);

/// An empty window compresses to a few kilobytes.
const EMPTY_BYTES: usize = 15_000;

/// All that the template has, and so all that may be there.
const TAGS: &str = "a b body button caption code footer form h1 head header html input label li main meta option p select span style \
                    table tbody td th thead time title tr ul";

/// The fleet that a person looks at: most are well, a few are not.
fn people() -> Vec<(String, Option<ApiServer>)> {
    let well = || Some(ApiServer::tells("v1.33.4"));
    let name = |n: usize| {
        let place = ["berlin", "lisbon", "oslo", "porto", "turin"][n % 5];
        format!("{}-{place}-{:02}", ["store", "plant", "ship"][n % 3], n / 5)
    };
    let mut fleet: Vec<_> = (0..200).map(|n| (name(n), well())).collect();
    fleet[17].1 = Some(ApiServer::Refuses);
    fleet[58].1 = Some(ApiServer::says(500, "Internal error occurred: etcdserver: no leader"));
    fleet[93].1 =
        Some(ApiServer::says(403, "forbidden: User \"system:serviceaccount:postern:agent\" cannot get path \"/version\""));
    fleet[121].1 = Some(ApiServer::Hangs);
    for n in [5, 31, 77, 104, 150, 188] {
        fleet[n].1 = None;
    }
    fleet
}

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, program: &Path) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
    let mut browser = Browser::start(program, dir.path())?;
    looks(suite, &mut browser)?;
    harms_nobody(suite, &mut browser)?;
    Ok(browser.log_tail())
}

fn looks(suite: &mut Suite, browser: &mut Browser) -> Result<()> {
    let mut fleet = Fleet::start(&people())?;
    let url = fleet.page("refresh=off");
    suite.step("a fleet of 200 is shown as it is", || {
        fleet.wait_for_states(&[("healthy", 190), ("unhealthy", 4), ("offline", 6), ("unknown", 0)])?;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme)?;
            browser.resize(1440, 1000)?;
            browser.open(&url)?;
            shot(browser, &format!("fleet-{scheme}"))?;
            let told = browser.value("[...document.querySelectorAll('.counts b')].map(n => n.textContent).join(' ')")?;
            ensure!(told == "4 6 0 190", "{told}");
            let first =
                browser.value("[...document.querySelectorAll('tbody tr')].slice(0, 11).map(row => row.className).join(' ')")?;
            let worst = [["unhealthy"; 4].as_slice(), &["offline"; 6], &["healthy"]].concat().join(" ");
            ensure!(first == worst.as_str(), "the worst come first: {first}");
            fits(browser)?;
            contrasts(browser).with_context(|| scheme.to_owned())?;
        }
        quiet(browser)
    });
    suite.step("dark is dark and light is light", || {
        let mut ground = |scheme: &str| {
            browser.prefer(scheme)?;
            browser.value("getComputedStyle(document.body).backgroundColor")
        };
        let (light, dark) = (ground("light")?, ground("dark")?);
        ensure!(light != dark, "{light} {dark}");
        browser.prefer("light")
    });
    suite.step("every width is read without scrolling sideways", || {
        for (width, height) in [(360, 780), (600, 800), (820, 1000), (1024, 768), (1100, 800), (1280, 800), (1920, 1080)] {
            browser.resize(width, height)?;
            browser.open(&url)?;
            fits(browser).with_context(|| format!("{width} px"))?;
            shot(browser, &format!("width-{width}"))?;
        }
        browser.prefer("dark")?;
        browser.resize(360, 780)?;
        browser.value("document.querySelector('tbody').scrollIntoView()")?;
        shot(browser, "cards-dark")?;
        contrasts(browser)?;
        browser.prefer("light")?;
        browser.resize(1440, 1000)?;
        quiet(browser)
    });
    suite.step("a keyboard reaches all of it, and sees where it is", || keyboard(browser, &url));
    suite.step("one cluster that goes offline is seen within seconds, without a hand on the page", || {
        let name = people()[0].0.clone();
        browser.open(&fleet.page(&format!("cluster={name}")))?;
        let state = "document.querySelector('tbody tr').className";
        ensure!(browser.value(state)? == "healthy");
        fleet.stop(&name)?;
        let offline = || Ok(browser.value(state).is_ok_and(|state| state == "offline").then_some(()));
        wait_for("the page to tell", SHOWN_MAX, offline)?;
        shot(browser, "one-offline")?;
        quiet(browser)
    });
    suite.step("a filter that finds nothing says so", || {
        browser.open(&fleet.page("refresh=off&name=nowhere"))?;
        shot(browser, "none")?;
        ensure!(browser.value("document.querySelector('.none').textContent")? == "No cluster is like that.");
        fits(browser)
    });
    Ok(())
}

/// Walks by Tab alone through the filter to the first cluster, filters, and jumps over it all by the skip link.
fn keyboard(browser: &mut Browser, url: &str) -> Result<()> {
    const PLACE: &str = "(e => e.id || e.getAttribute('href') || e.textContent)(document.activeElement)";
    const IS_SEEN: &str = "(e => { const o = getComputedStyle(e), r = e.getBoundingClientRect(); \
         return o.outlineStyle != 'none' && parseFloat(o.outlineWidth) >= 2 && r.width > 0 && r.right > 0 && r.bottom > 0 \
         && r.top < innerHeight })(document.activeElement)";
    browser.open(url)?;
    let mut places = Vec::new();
    for _ in 0..10 {
        browser.press("Tab")?;
        places.push(browser.value(PLACE)?.as_str().unwrap_or_default().to_owned());
        ensure!(browser.value(IS_SEEN)? == true, "the focus is not seen at {places:?}");
    }
    let is_at = |n: usize, part: &str| places.get(n).is_some_and(|place: &String| place.contains(part));
    ensure!(is_at(0, "#clusters") && is_at(1, "refresh="), "{places:?}");
    ensure!(is_at(2, "state=unhealthy") && is_at(5, "state=healthy"), "{places:?}");
    ensure!(is_at(6, "state") && is_at(7, "name") && is_at(8, "Filter") && is_at(9, "cluster="), "{places:?}");

    browser.open(url)?;
    for _ in 0..8 {
        browser.press("Tab")?;
    }
    browser.type_text("LISBON")?;
    browser.press("Enter")?;
    browser.loaded()?;
    let rows = browser.value("[...document.querySelectorAll('tbody th')].map(th => th.textContent)")?;
    let rows = rows.as_array().context("rows")?;
    ensure!(rows.len() == 40 && rows.iter().all(|row| row.as_str().is_some_and(|row| row.contains("lisbon"))), "{rows:?}");
    let kept = browser.value("document.querySelector('#name').value + ' ' + location.search.includes('refresh=off')")?;
    ensure!(kept == "lisbon true", "{kept}");

    browser.open(url)?;
    browser.press("Tab")?;
    browser.press("Enter")?;
    browser.press("Tab")?;
    let place = browser.value(PLACE)?;
    ensure!(place.as_str().is_some_and(|place| place.contains("cluster=")), "the skip link leads to {place}");
    quiet(browser)
}

/// Everything that others may choose, as versions and as words of an error.
fn harms_nobody(suite: &mut Suite, browser: &mut Browser) -> Result<()> {
    let mut words = injections()?;
    words.push("<b>".repeat(4_000));
    let hostile = words.iter().enumerate().flat_map(|(n, words)| {
        let version = (format!("version-{n}"), Some(ApiServer::tells(words)));
        [version, (format!("message-{n}"), Some(ApiServer::says(418, words)))]
    });
    let fleet = Fleet::start(&hostile.collect::<Vec<_>>())?;
    suite.step("what others choose is text, and only text", || {
        let n = words.len();
        fleet.wait_for_states(&[("healthy", n), ("unhealthy", n)])?;
        let told = fleet.clusters("")?;
        for width in [1440, 360] {
            browser.resize(width, 1000)?;
            browser.open(&fleet.page("refresh=off"))?;
            shot(browser, &format!("hostile-{width}"))?;
            let tags = browser.value("[...new Set([...document.querySelectorAll('*')].map(e => e.localName))].sort().join(' ')")?;
            let strange: Vec<_> = tags.as_str().unwrap_or_default().split(' ').filter(|tag| !TAGS.split(' ').any(|known| known == *tag)).collect();
            ensure!(strange.is_empty(), "elements that somebody chose: {strange:?}");
            for (what, expression) in [
                ("style", "document.querySelectorAll('style').length - 1"),
                ("form", "document.querySelectorAll('form').length - 1"),
                ("attribute", "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => /^on|^style$|^srcdoc$/.test(a.name)).length"),
                ("link", "[...document.querySelectorAll('[href]')].filter(e => !/^(\\/clusters\\?|#clusters$)/.test(e.getAttribute('href'))).length"),
                ("script", "typeof window.pwned == 'undefined' ? 0 : 1"),
                ("unseen character", "(document.body.textContent.match(/[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2069\\ufeff]/g) || []).length"),
            ] {
                let found = browser.value(expression)?;
                ensure!(found == 0, "{what}: {found}");
            }
            fits(browser)?;
        }
        for cluster in told.as_array().context("clusters")? {
            is_literal(browser, cluster)?;
        }
        quiet(browser)
    });
    Ok(())
}

/// The page shows, to the letter, what programs are told.
fn is_literal(browser: &mut Browser, cluster: &Value) -> Result<()> {
    let row = format!(
        "[...document.querySelectorAll('tbody tr')].find(row => row.querySelector('th').textContent == {})",
        cluster["id"]
    );
    for (label, told) in
        [("Kubernetes", &cluster["kubernetes"]), ("State", &cluster["why"]), ("Last error", &cluster["lastError"]["text"])]
    {
        // What stands beside it is not said again.
        let told = if label == "Last error" && told.is_string() && *told == cluster["why"] { &json!("the same") } else { told };
        if let Some(told) = told.as_str() {
            let cell = browser.value(&format!("{row}.querySelector('[data-label=\"{label}\"]').textContent"))?;
            ensure!(cell.as_str().is_some_and(|cell| cell.contains(told)), "{label} of {cluster}: {cell}");
        }
    }
    Ok(())
}

fn injections() -> Result<Vec<String>> {
    let lines = include_str!("../../testdata/injections.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Nothing reaches beyond the window's sides.
fn fits(browser: &mut Browser) -> Result<()> {
    let wide = browser.value(
        "[document.documentElement.scrollWidth - innerWidth, [...document.querySelectorAll('main *, header *, footer *')] \
         .filter(e => !e.closest('.unseen, thead') && (r => r.right > innerWidth + 0.5 || r.left < -0.5)(e.getBoundingClientRect())) \
         .map(e => e.outerHTML.slice(0, 80)).slice(0, 3)]",
    )?;
    ensure!(wide[0].as_i64().is_some_and(|over| over <= 0) && wide[1] == json!([]), "it is too wide: {wide}");
    Ok(())
}

/// All text stands out from its ground by 4.5 to 1 (WCAG 2.2, success criterion 1.4.3).
fn contrasts(browser: &mut Browser) -> Result<()> {
    let pale = browser.value(
        "(() => { \
         const parts = text => text.match(/[\\d.]+/g).map(Number); \
         const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) \
           .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0); \
         const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); \
           if (c.length < 4 || c[3] == 1) return c; } return [255, 255, 255]; }; \
         const texts = [...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || e.localName == 'input'); \
         const ratio = e => { const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a); \
           return (a + 0.05) / (b + 0.05); }; \
         return [texts.length, texts.filter(e => ratio(e) < 4.5).slice(0, 5).map(e => ratio(e).toFixed(2) + ' ' + e.outerHTML.slice(0, 80))] })()",
    )?;
    ensure!(pale[0].as_u64().is_some_and(|n| n > 1000), "only {} texts were looked at", pale[0]);
    ensure!(pale[1] == json!([]), "{pale}");
    Ok(())
}

/// The browser had nothing to complain of.
fn quiet(browser: &mut Browser) -> Result<()> {
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

fn shot(browser: &mut Browser, name: &str) -> Result<()> {
    let path = pictures()?.join(format!("{name}.png"));
    let n_bytes = browser.screenshot(&path)?;
    ensure!(n_bytes > EMPTY_BYTES, "{} is as good as empty: {n_bytes} bytes", path.display());
    Ok(())
}

/// `page` in the target folder that this test was built into.
fn pictures() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    Ok(test.ancestors().nth(3).context("a test outside of a target folder")?.join("page"))
}
