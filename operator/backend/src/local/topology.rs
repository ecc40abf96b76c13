//! The network: a hub that routes between nodes, each behind a veth of its own.
//!
//! Never a bridge: the kernel's neighbour table is shared by the whole host, and a hundred nodes that look for each other
//! overflow it. Here every route is a /32 and every neighbour permanent, so nothing is ever looked up.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use futures::TryStreamExt;
use netlink_packet_route::{
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::NeighbourState,
    route::RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{namespaces, network::Network};

/// The hub's end of every veth seems to have this address to the other end; nothing else ever sees it.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const LOOPBACK: u32 = 1;
/// The node's end, in its own namespace.
const NODE_LINK: u32 = 2;
/// The hub's end of the veth to the host, where there is one.
pub(super) const UPLINK: &str = "uplink";
/// The hub's ends count from here.
const HUB_LINKS: u32 = 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum TopologyError {
    #[error("cannot {what}")]
    System {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what}")]
    Route {
        what: String,
        #[source]
        source: rtnetlink::Error,
    },
}

/// Of the hub's end (0) and the host's (1).
pub(super) fn uplink_mac(side: u8) -> [u8; 6] {
    mac(3, side.into())
}

fn mac(side: u8, index: usize) -> [u8; 6] {
    // The second bit of the first byte says: locally administered.
    [0x02, side, 0, 0, (index >> 8) as u8, index as u8]
}

/// Sets up the hub, which is the namespace of the calling process.
pub(super) async fn build_hub(network: Network) -> Result<Handle, TopologyError> {
    // Defaults for links made later; a new namespace may inherit strict ones from the host.
    let settings = [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ];
    for (key, value) in settings {
        fs::write(format!("/proc/sys/net/{key}"), value)
            .map_err(|source| TopologyError::System { what: format!("set net/{key} in the hub"), source })?;
    }
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| TopologyError::System {
        what: "open a netlink socket in the hub".into(),
        source,
    })?;
    tokio::spawn(connection);
    let fail = |what: &str| {
        let what = format!("{what} in the hub");
        move |source| TopologyError::Route { what, source }
    };
    up(&handle, LOOPBACK).await.map_err(fail("bring up loopback"))?;
    handle
        .address()
        .add(LOOPBACK, IpAddr::V4(network.hub()), 32)
        .execute()
        .await
        .map_err(fail("add an address"))?;
    Ok(handle)
}

/// Routes to the host over the uplink, whose other end the outer process made.
pub(super) async fn join_host(hub: &Handle, network: Network) -> Result<(), TopologyError> {
    let fail = |what: &str| {
        let what = format!("{what} in the hub");
        move |source| TopologyError::Route { what, source }
    };
    netsplit_links::uplink::guard(UPLINK).map_err(|error| TopologyError::System {
        what: "guard the uplink of the hub".to_owned(),
        source: io::Error::other(error),
    })?;
    let uplink = link_index(hub, UPLINK.to_owned()).await.map_err(fail("find the uplink"))?;
    up(hub, uplink).await.map_err(fail("bring up the uplink"))?;
    let to_host = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network.host(), 32)
        .output_interface(uplink)
        .scope(RouteScope::Link)
        .pref_source(network.hub())
        .build();
    hub.route().add(to_host).execute().await.map_err(fail("route to the host"))?;
    neighbour(hub, uplink, network.host(), uplink_mac(1)).await.map_err(fail("set the host as neighbour"))
}

/// Makes a node's namespace and joins it to the hub.
pub(super) async fn build_node(
    hub: &Handle,
    network: Network,
    index: usize,
    name: &str,
) -> Result<OwnedFd, TopologyError> {
    let system = |what: &'static str| {
        let what = format!("{what} of {name}");
        move |source| TopologyError::System { what, source }
    };
    let namespace = namespaces::create().map_err(system("create the network namespace"))?;
    let runtime = tokio::runtime::Handle::current();
    let (connection, node, _) = namespaces::within(namespace.as_fd(), || {
        let _context = runtime.enter();
        rtnetlink::new_connection()
    })
    .map_err(system("open a netlink socket in the namespace"))?;
    let driver = tokio::spawn(connection);
    let result = join(hub, &node, &namespace, network, index).await;
    driver.abort();
    result.map_err(|(what, source)| TopologyError::Route { what: format!("{what} of {name}"), source })?;
    Ok(namespace)
}

async fn join(
    hub: &Handle,
    node: &Handle,
    namespace: &OwnedFd,
    network: Network,
    index: usize,
) -> Result<(), (&'static str, rtnetlink::Error)> {
    let fail = |what| move |source| (what, source);
    let own = network.node(index);
    let hub_link = HUB_LINKS + index as u32;
    hub.link().add(veth(namespace, index, hub_link)).execute().await.map_err(fail("create the veth"))?;
    up(node, LOOPBACK).await.map_err(fail("bring up loopback"))?;
    up(node, NODE_LINK).await.map_err(fail("bring up the link"))?;
    let set = node.address().add(NODE_LINK, IpAddr::V4(own), 32).execute();
    set.await.map_err(fail("set the address"))?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(GATEWAY, 32)
        .output_interface(NODE_LINK)
        .scope(RouteScope::Link)
        .build();
    node.route().add(to_gateway).execute().await.map_err(fail("route to the hub"))?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(NODE_LINK).build();
    node.route().add(default).execute().await.map_err(fail("set the default route"))?;
    neighbour(node, NODE_LINK, GATEWAY, mac(1, index)).await.map_err(fail("set the hub as neighbour"))?;
    let from_hub = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(own, 32)
        .output_interface(hub_link)
        .scope(RouteScope::Link)
        .pref_source(network.hub())
        .build();
    hub.route().add(from_hub).execute().await.map_err(fail("set the hub's route"))?;
    neighbour(hub, hub_link, own, mac(2, index)).await.map_err(fail("set the hub's neighbour"))
}

/// A veth's second end cannot be given an index unless the first has one, so it is found by name.
pub(super) async fn link_index(handle: &Handle, name: String) -> Result<u32, rtnetlink::Error> {
    let found = handle.link().get().match_name(name).execute().try_next().await?;
    Ok(found.ok_or(rtnetlink::Error::RequestFailed)?.header.index)
}

async fn up(handle: &Handle, link: u32) -> Result<(), rtnetlink::Error> {
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    handle.link().set(message).execute().await
}

pub(super) async fn neighbour(
    handle: &Handle,
    link: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> Result<(), rtnetlink::Error> {
    let request = handle.neighbours().add(link, IpAddr::V4(address));
    request.link_layer_address(&mac).state(NeighbourState::Permanent).execute().await
}

fn veth(namespace: &OwnedFd, index: usize, hub_link: u32) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.header.index = NODE_LINK;
    peer.attributes = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::Address(mac(2, index).to_vec()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.header.index = hub_link;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(format!("node{index}")),
        LinkAttribute::Address(mac(1, index).to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    message
}
