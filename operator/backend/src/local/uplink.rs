//! As root, a testnet's nodes answer at their addresses from this machine: a veth from the host's network to the hub.
//!
//! The host's end is named after the block of addresses it leads to, so that making it claims the block. Both go with
//! the hub's namespace, however that ends. The way is for those who connect to a node: [`netsplit_links::uplink`] refuses
//! what a node would begin.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures::TryStreamExt;
use netlink_packet_route::{
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{
    chain,
    network::Network,
    topology::{GATEWAY, UPLINK, link_index, neighbour, uplink_mac},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum UplinkError {
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("cannot {what}")]
    Route {
        what: &'static str,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("every block of addresses in 10.77.0.0/16 is taken by a testnet or a route of this machine")]
    NoBlock,
}

/// Joins the network of this process to the hub, the namespace of `inner`; gives the block of addresses that leads there.
pub(super) async fn open(inner: u32) -> Result<Network, UplinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(UplinkError::Socket)?;
    let driver = tokio::spawn(connection);
    let network = claim(&handle, inner).await;
    driver.abort();
    network
}

async fn claim(handle: &Handle, inner: u32) -> Result<Network, UplinkError> {
    let routes = routes(handle).await?;
    let is_free = |network: &Network| !routes.iter().any(|(base, prefix)| network.overlaps(*base, *prefix));
    for network in Network::all().filter(is_free) {
        match handle.link().add(veth(network, inner)).execute().await {
            Ok(()) => {
                let linked = lead(handle, network).await;
                if linked.is_err()
                    && let Ok(link) = link_index(handle, name(network)).await
                    && let Err(error) = handle.link().del(link).execute().await
                {
                    tracing::warn!("cannot remove {}: {}", name(network), chain(&error));
                }
                return linked.map(|()| network);
            }
            // Another testnet was faster.
            Err(error) if is_errno(&error, libc::EEXIST) => {}
            Err(source) => return Err(UplinkError::Route { what: "create the veth to the hub", source }),
        }
    }
    Err(UplinkError::NoBlock)
}

async fn lead(handle: &Handle, network: Network) -> Result<(), UplinkError> {
    let fail = |what| move |source| UplinkError::Route { what, source };
    let link = link_index(handle, name(network)).await.map_err(fail("find the veth to the hub"))?;
    let address = handle.address().add(link, IpAddr::V4(network.host()), 32).execute();
    address.await.map_err(fail("set this machine's address"))?;
    neighbour(handle, link, GATEWAY, uplink_mac(0)).await.map_err(fail("set the hub as neighbour"))?;
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network.base(), Network::PREFIX)
        .gateway(GATEWAY)
        .output_interface(link)
        .pref_source(network.host())
        .build();
    route.header.flags |= RouteFlags::Onlink;
    handle.route().add(route).execute().await.map_err(fail("route to the nodes"))
}

fn name(network: Network) -> String {
    format!("netsplit{}", network.number())
}

fn veth(network: Network, inner: u32) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(UPLINK.to_owned()),
        LinkAttribute::Address(uplink_mac(0).to_vec()),
        LinkAttribute::NetNsPid(inner),
    ];
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name(network)),
        LinkAttribute::Address(uplink_mac(1).to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    message
}

/// What this machine routes somewhere already; the default route leads everywhere and does not count.
async fn routes(handle: &Handle) -> Result<Vec<(Ipv4Addr, u8)>, UplinkError> {
    let wanted = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let destination = |route: RouteMessage| {
        let base = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(base)) => Some(*base),
            _ => None,
        });
        base.map(|base| (base, route.header.destination_prefix_length))
    };
    let listed: Result<Vec<_>, _> = handle.route().get(wanted).execute().try_collect().await;
    let listed = listed.map_err(|source| UplinkError::Route { what: "list the routes", source })?;
    Ok(listed.into_iter().filter_map(destination).filter(|(_, prefix)| *prefix > 0).collect())
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}
