//! The page and the document of a fixed fleet, to look at.

use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use tunnel::{Sums, Totals};

use super::super::document;
use super::*;
use crate::foreign;
use crate::health::{LastError, Probe};
use crate::registry::Serving;

const HOSTILE: &str = "<script>alert('1')</script>\" onload=x \u{202e}&lt;";

fn standing(id: &str, state: State, why: Option<&str>) -> Standing {
    let time = |seconds: i64| Timestamp::from_second(1_767_000_000 + seconds).expect("a time");
    let serving = |outcome: Result<&str, &str>| Serving {
        connected_since: time(60),
        agent: "postern-agent/0.1.0 0123456789abcdef".to_owned(),
        round_trip: Some(Duration::from_micros(12_345)),
        probe: Some(Probe {
            at: Instant::now(),
            time: time(3_598),
            took: Duration::from_millis(34),
            outcome: outcome.map(str::to_owned).map_err(str::to_owned),
        }),
    };
    let serving = match state {
        State::Healthy => Some(serving(Ok("v1.33.4"))),
        State::Unhealthy => Some(Serving { agent: HOSTILE.replace(' ', "_"), ..serving(Err(why.unwrap_or_default())) }),
        State::Unknown => Some(Serving { probe: None, round_trip: None, agent: String::new(), ..serving(Ok("")) }),
        State::Offline => None,
    };
    let totals = Totals { bytes_received: 1 << 30, bytes_sent: 1234, ..Totals::default() };
    let sums = Sums { sessions: 2, streams: [1, 150, 2, 0], buffered: 0, totals };
    Standing {
        cluster: id.parse().expect("an id"),
        state,
        why: why.map(str::to_owned),
        since: time(120),
        last_error: why.map(|why| LastError { text: why.to_owned(), time: time(3_598) }),
        sums: if serving.is_some() { sums } else { Sums::default() },
        serving,
    }
}

fn fleet() -> Vec<Standing> {
    vec![
        standing("a-healthy", State::Healthy, None),
        standing("b-half", State::Healthy, Some("1 of 2 sessions: no answer within 5 s")),
        standing("c-dead", State::Unhealthy, Some(&foreign::shown(HOSTILE, 256))),
        standing("d-offline", State::Offline, Some("nothing was heard from the peer for 45 s")),
        standing("e-unknown", State::Unknown, Some("its API server was not asked yet")),
    ]
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_003_600).expect("a time")
}

fn wanted(query: &str) -> Wanted {
    Wanted::of(&Request::get(format!("/clusters?{query}")).body(()).expect("a request")).expect("a question")
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_fleet() {
    let page = write(now(), &wanted("format=html"), &fleet());
    let (_, below_style) = page.split_once("</style>").expect("a style");
    insta::assert_snapshot!("page", below_style);
}

#[tokio::test(start_paused = true)]
async fn the_document_of_a_fleet() {
    let document = document::write(now(), &wanted("format=json"), &fleet());
    insta::assert_snapshot!("document", document.replace("},{\"id\"", "},\n{\"id\""));
}

#[tokio::test(start_paused = true)]
async fn a_page_of_thousands_shows_the_worst_and_tells_how_many_more_there_are() {
    let mut many: Vec<_> = (0..4_000).map(|n| standing(&format!("edge-{n}"), State::Healthy, None)).collect();
    many.push(standing("z-dead", State::Unhealthy, Some("dead")));
    let page = write(now(), &wanted("format=html"), &many);
    assert!(page.matches("<tr role=\"row\" class=").count() == ROWS_MAX && page.contains("3501 more are not shown"));
    assert!(page.contains(">z-dead</a>") && page.len() < 2 << 20, "{} bytes", page.len());
    let document = document::write(now(), &wanted(""), &many);
    assert!(document.matches("\"id\":").count() == 4_001 && document.len() < 4 << 20, "{} bytes", document.len());
}

#[test]
fn the_policy_allows_that_style_and_nothing_else() {
    let page = write(now(), &wanted("format=html"), &[]);
    let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style").0;
    assert!(policy().contains(&STANDARD.encode(Sha256::digest(style))), "the hash is of another style");
    assert!(!policy().contains("unsafe") && !policy().contains("script") && !page.contains("<script"));
}
