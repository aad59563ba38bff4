//! What resolvers say, and what addresses answer at which nobody lives.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_name_leads_to_machines_and_addresses_in_its_place_or_everywhere() {
    let net = Net::new(Wan::LAN);
    net.fabric.add_name("", "hub", &[HUB]);
    assert_eq!(net.fabric.resolve(EDGE, "hub").await.unwrap(), [net.hub.ip()]);
    assert_eq!(net.fabric.add_name("edge", "hub", &["192.0.2.1", HUB]), None);
    assert_eq!(net.fabric.resolve(EDGE, "hub").await.unwrap(), ["192.0.2.1".parse::<std::net::IpAddr>().unwrap(), net.hub.ip()]);
    assert_eq!(net.fabric.resolve(HUB, "hub").await.unwrap(), [net.hub.ip()]);
    net.fabric.remove_name("edge", "hub");
    assert_eq!(net.fabric.resolve(EDGE, "hub").await.unwrap(), [net.hub.ip()]);
    assert!(net.fabric.resolve(EDGE, "nobody").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_name_is_denied_in_its_place_and_a_mute_resolver_says_nothing() {
    let net = Net::new(Wan::LAN);
    net.fabric.lose_name("edge", HUB);
    assert_eq!(net.fabric.resolve(EDGE, HUB).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(net.fabric.resolve(HUB, HUB).await.unwrap(), [net.hub.ip()]);
    net.fabric.find_name("edge", HUB);

    net.fabric.mute_resolver("edge");
    assert!(timeout(LONG, net.fabric.resolve(EDGE, HUB)).await.is_err(), "a mute resolver spoke");
    let fabric = net.fabric.clone();
    let waits = async move { fabric.resolve(EDGE, HUB).await };
    let (answer, ()) = tokio::join!(waits, async {
        tokio::task::yield_now().await;
        net.fabric.unmute_resolver("edge");
    });
    assert_eq!(answer.unwrap(), [net.hub.ip()]);
    assert_eq!(net.fabric.resolve(EDGE, "10.0.0.1").await.unwrap(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn nobody_says_that_nobody_lives_at_a_test_address_and_of_others_the_routers_do() {
    let net = Net::new(Wan::LAN);
    let nowhere = SocketAddr::new("192.0.2.7".parse().unwrap(), PORT);
    assert!(timeout(LONG, net.fabric.dial(EDGE, 0, nowhere)).await.is_err(), "a dead address answered");
    for unknown in ["10.99.0.1", "2001:db8::1"] {
        let error = net.fabric.dial(EDGE, 0, SocketAddr::new(unknown.parse().unwrap(), PORT)).await.err();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::HostUnreachable));
    }
}
