//! Datagrams with the address they came to.
//!
//! A redirected question comes to an address that routing would not choose for the reply, and a
//! reply from any other address is not taken by the kernel for one. So each is sent from where its
//! question arrived.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// One datagram that came.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) length: usize,
    /// It was longer than the room for it.
    pub(super) cut: bool,
    from: SockaddrStorage,
    to: Option<Local>,
}

/// The address it came to, as the kernel wants it back.
#[derive(Clone, Copy, Debug)]
enum Local {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Has the kernel tell where datagrams of this socket came to.
pub(super) fn prepare(socket: &UdpSocket) -> std::io::Result<()> {
    let v6 = matches!(socket.local_addr()?, SocketAddr::V6(_));
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<Packet> {
    socket
        .async_io(Interest::READABLE, || {
            let mut control = cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            let got = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags)?;
            let to = got.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
                _ => None,
            });
            Ok(Packet {
                length: got.bytes,
                cut: got.flags.contains(MsgFlags::MSG_TRUNC),
                from: got.address.ok_or(Errno::EDESTADDRREQ)?,
                to,
            })
        })
        .await
}

/// Sends a reply, or gives up at once: a full buffer means that nobody reads.
pub(super) fn send(socket: &UdpSocket, packet: &Packet, reply: &[u8]) -> std::io::Result<()> {
    // The interface is left to routing; only the source address is ours to say.
    let slices = [IoSlice::new(reply)];
    let fd = socket.as_raw_fd();
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(
            fd,
            &slices,
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&packet.from),
        )
    };
    match packet.to {
        Some(Local::V4(mut info)) => {
            info.ipi_ifindex = 0;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?
        }
        Some(Local::V6(mut info)) => {
            if !is_link_local(&info) {
                info.ipi6_ifindex = 0;
            }
            send(&[ControlMessage::Ipv6PacketInfo(&info)])?
        }
        None => send(&[])?,
    };
    Ok(())
}

/// Such an address means nothing without its interface.
fn is_link_local(info: &libc::in6_pktinfo) -> bool {
    match IpAddr::from(info.ipi6_addr.s6_addr) {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    }
}
