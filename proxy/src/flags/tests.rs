//! Flags: both spellings, who wins over whom, and that every mistake is told at once.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::*;

const TABLE: &[Section] = &[
    Section {
        title: "Listening",
        flags: &[
            Flag::value("addr", "ADDR", "Where agents arrive").default(":8443"),
            Flag::value("token", "TOKEN", "The agent's secret").env("TOKEN"),
        ],
    },
    Section {
        title: "Limits",
        flags: &[
            Flag::value("rate-limit", "N", "Requests per second, 0 = no limit").default("0"),
            Flag::value("drain", "TIME", "How long a drain may take").default("30s").env("DRAIN"),
            Flag::switch("insecure", "Skip verification"),
        ],
    },
];

#[test]
fn go_and_gnu_spelling_mean_the_same() {
    for args in [
        ["-addr=:1", "-insecure"].as_slice(),
        &["--addr=:1", "--insecure"],
        &["-addr", ":1", "-insecure=true"],
        &["--addr", ":1", "--insecure=1"],
    ] {
        let mut values = parse(args, &[]);
        let (mut addr, mut insecure) = (String::new(), false);
        values.read("addr", text, &mut addr);
        values.read("insecure", switch, &mut insecure);
        assert_eq!((addr.as_str(), insecure), (":1", true), "{args:?}");
        assert_eq!(values.finish(()), Ok(()));
    }
}

#[test]
fn a_switch_can_be_turned_off_and_a_value_may_start_with_a_dash() {
    let mut values = parse(&["-insecure=false", "-token", "-abc"], &[]);
    let token: SecretString = values.get("token", secret).expect("a token");
    assert_eq!(values.get("insecure", switch), Some(false));
    assert_eq!(token.expose_secret(), "-abc");
}

#[test]
fn a_flag_is_no_other_flags_value_and_so_no_secret_is_told_as_one() {
    let mut values = parse(&["--drain", "--token=hush"], &[]);
    let token: SecretString = values.get("token", secret).expect("a token");
    assert_eq!(token.expose_secret(), "hush");
    assert_eq!(values.finish(()), Err(vec![ConfigError::new("--drain", "needs a value")]));
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_default() {
    let drain = |args: &[&str], env: &[(&str, &str)]| parse(args, env).get("drain", duration);
    assert_eq!(drain(&[], &[]), Some(Duration::from_secs(30)));
    assert_eq!(drain(&[], &[("DRAIN", "")]), Some(Duration::from_secs(30)));
    assert_eq!(drain(&[], &[("DRAIN", "5s")]), Some(Duration::from_secs(5)));
    assert_eq!(drain(&["-drain=1s"], &[("DRAIN", "5s")]), Some(Duration::from_secs(1)));
}

#[test]
fn every_mistake_is_told_at_once_with_its_key() {
    let args = ["-rate-limt=3", "-rate-limit=x", "stray-secret", "-addr=:1", "-addr=:2", "-what", "-insecure=maybe", "-token"];
    let mut values = parse(&args, &[("DRAIN", "soon")]);
    values.get("rate-limit", count::<u32>);
    values.get("drain", duration);
    values.get("insecure", switch);
    let errors = values.finish(()).expect_err("mistakes");
    insta::assert_snapshot!("mistakes", Mistakes(&errors));
}

#[test]
fn words_are_handed_out_in_order() {
    let mut values = parse(&["kubeconfig", "-drain=1s", "edge-1", "--", "-x"], &[]);
    let words: Vec<_> = std::iter::from_fn(|| values.next_word()).collect();
    assert_eq!(words, ["kubeconfig", "edge-1", "-x"]);
}

#[test]
fn the_help_shows_sections_defaults_and_variables() {
    let page = Page { name: "postern-x", about: "Does a thing.", usage: "[FLAGS]", after: "Example:\n  postern-x -addr=:1\n" };
    insta::assert_snapshot!("help", page.help(TABLE));
    insta::assert_snapshot!("markdown", markdown(TABLE));
}

#[test]
fn durations_are_read_as_go_writes_them() {
    let good = [
        ("0", Duration::ZERO),
        ("15s", Duration::from_secs(15)),
        ("500ms", Duration::from_millis(500)),
        ("1m30s", Duration::from_secs(90)),
        ("2h", Duration::from_secs(7200)),
        ("1.5s", Duration::from_millis(1500)),
        ("250us", Duration::from_micros(250)),
    ];
    for (text, expected) in good {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for bad in ["", "15", "s", "-1s", "1s2", "1 s", "1d", "1..5s", "99999999h", "1e3s", "1s-"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn sizes_are_powers_of_two() {
    for (text, expected) in [("0", 0), ("17", 17), ("64KiB", 65_536), ("128Mi", 128 << 20), ("1GiB", 1 << 30), ("5B", 5)] {
        assert_eq!(size(text), Ok(expected), "{text}");
    }
    for bad in ["", "MiB", "-1", "1MB", "1.5MiB", "99999999999GiB", "1 KiB"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn listening_addresses_are_ip_addresses_or_all_interfaces() {
    for (text, expected) in [
        (":8443", "[::]:8443"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:1", "[::1]:1"),
        ("localhost:1", "127.0.0.1:1"),
        ("0.0.0.0:9", "0.0.0.0:9"),
    ] {
        assert_eq!(address(text), Ok(expected.parse::<SocketAddr>().expect(expected)), "{text}");
    }
    for bad in ["", "8443", ":", ":99999", "::1:1", "hub.example:1", ":+1", "[::1]", ":http"] {
        assert!(address(bad).is_err(), "{bad}");
    }
}

#[test]
fn places_to_dial_have_a_host_and_a_port() {
    for good in ["kubernetes.default.svc:443", "10.0.0.1:6443", "[fd00::1]:6443", "edge_1:1"] {
        assert_eq!(host_port(good).expect(good).to_string(), good);
    }
    for bad in ["", "kubernetes", ":443", "a:0", "a b:1", "a/b:1", "http://a:1", "::1:1", "[x:]:1"] {
        assert!(host_port(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_secret_is_trimmed_and_never_echoed() {
    assert_eq!(secret(" abc\n").expect("a secret").expose_secret(), "abc");
    for bad in ["", " ", "a\nb", "gehéim"] {
        let problem = secret(bad).expect_err(bad);
        assert!(bad.trim().is_empty() || !problem.contains(bad), "{problem}");
    }
}

fn parse(args: &[&str], env: &[(&str, &str)]) -> Values {
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Values::parse(TABLE, args.iter().map(|arg| (*arg).to_owned()), &lookup)
}
