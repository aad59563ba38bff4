//! The suites: the API, its streams and the life of both programs, each on every upstream that can do it.
//!
//! One test is one upstream with all suites that fit it, because starting one is what takes the time.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "drives real processes in real time"
)]

mod api;
mod audit;
mod callers;
mod files;
mod floods;
mod guard;
mod hosts;
mod lifecycle;
mod metrics;
mod networks;
mod page;
mod registration;
mod smuggling;
mod streams;
mod traces;
mod trust;

use anyhow::Result;
use e2e::{Fleet, Scene, Suite, requirement};

#[test]
fn kubectl_works_on_the_fake_api_server() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake(&kubectl), |suite, scene| {
        api::run(suite, scene);
        streams::run(suite, scene);
    });
}

#[test]
fn a_pair_outlives_its_parts() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake(&kubectl), |suite, scene| {
        lifecycle::run(suite, scene);
        guard::run(suite, scene);
    });
}

#[test]
fn what_was_done_can_be_proved() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake_with_audit(&kubectl), audit::run);
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let (Some(kubectl), Some(())) = (requirement::kubectl(), requirement::namespaces()) else { return };
    run(Scene::fake_with_audit(&kubectl), audit::run_on_full_disk);
}

#[test]
fn trust_is_what_the_files_say_now() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake(&kubectl), trust::run);
}

#[test]
fn callers_have_names() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake_with_callers(&kubectl, &callers::at_first()), callers::run);
}

#[test]
fn a_proxy_with_a_password_leads_to_the_hub_and_the_doctor_says_what_stands_in_the_way() {
    let (Some(kubectl), Some(())) = (requirement::kubectl(), requirement::tinyproxy()) else { return };
    run(Scene::fake(&kubectl), networks::run);
}

#[test]
fn a_check_says_whether_a_server_would_start() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake(&kubectl), networks::check);
}

#[test]
fn hostile_requests_are_one_clean_request_or_none_for_the_programs_as_they_ship() {
    let mut suite = Suite::new();
    suite.must("hostile requests", smuggling::run);
    suite.finish(String::new);
}

#[test]
fn a_real_prometheus_reads_what_both_programs_tell() {
    let Some(()) = requirement::prometheus() else { return };
    let mut suite = Suite::new();
    metrics::run(&mut suite).unwrap_or_else(|error| panic!("the scene could not be set: {error:#}"));
    suite.finish(String::new);
}

#[test]
fn one_trace_leads_from_a_caller_to_the_api_server() {
    let mut suite = Suite::new();
    traces::run(&mut suite).unwrap_or_else(|error| panic!("the scene could not be set: {error:#}"));
    suite.finish(String::new);
}

#[test]
fn a_watch_beside_slow_heads_and_a_flood_of_handshakes_is_as_quick_as_alone() {
    let Some(kubectl) = requirement::kubectl() else { return };
    run(Scene::fake(&kubectl), floods::run);
}

#[test]
fn a_bad_file_keeps_a_program_from_starting_and_a_running_one_goes_on_without_it() {
    let mut suite = Suite::new();
    files::run(&mut suite).unwrap_or_else(|error| panic!("the files could not be made: {error:#}"));
    suite.finish(String::new);
}

#[test]
fn the_page_of_clusters_is_what_a_browser_shows_and_nobody_scripts_it() {
    let Some(chromium) = requirement::chromium() else { return };
    let mut suite = Suite::new();
    let log = page::run(&mut suite, &chromium).unwrap_or_else(|error| panic!("the page could not be opened: {error:#}"));
    suite.finish(|| log);
}

#[test]
fn kubectl_works_on_a_real_api_server() {
    let (Some(kubectl), Some(assets)) = (requirement::kubectl(), requirement::assets()) else { return };
    run(Scene::api_server(&assets, &kubectl), |suite, scene| {
        api::run(suite, scene);
        networks::rights(suite, scene);
        registration::run(suite, scene);
    });
}

#[test]
fn kubectl_works_on_a_real_cluster() {
    let (Some(kubectl), Some(source)) = (requirement::kubectl(), requirement::cluster()) else { return };
    run(Scene::cluster(&source, &kubectl), |suite, scene| {
        api::run(suite, scene);
        streams::run(suite, scene);
    });
}

#[test]
fn sessions_come_back_on_separate_hosts() {
    let Some(()) = requirement::namespaces() else { return };
    let mut fleet = Fleet::start(&hosts::CLUSTERS).unwrap_or_else(|error| panic!("the fleet could not be started: {error:#}"));
    let mut suite = Suite::new();
    hosts::run(&mut suite, &mut fleet);
    suite.finish(|| fleet.log_tails());
}

fn run(scene: Result<Scene>, steps: impl FnOnce(&mut Suite, &mut Scene)) {
    let mut scene = scene.unwrap_or_else(|error| panic!("the scene could not be set: {error:#}"));
    let mut suite = Suite::new();
    steps(&mut suite, &mut scene);
    suite.finish(|| scene.log_tails());
}
