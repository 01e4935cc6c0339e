//! Questions over UDP.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::message::MAX_QUESTION;
use super::{DnsContext, Reply, packet};

/// After this many questions in one go, others get their turn.
const FAIRNESS: u32 = 64;

/// Answers questions on `socket` for as long as it lasts.
pub async fn serve_udp(socket: UdpSocket, context: Arc<DnsContext>) {
    if let Err(error) = packet::prepare(&socket) {
        tracing::warn!(%error, "replies over UDP may come from an address that nobody asked");
    }
    let mut buffer = vec![0; MAX_QUESTION];
    let mut turn: u32 = 0;
    loop {
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(FAIRNESS) {
            tokio::task::yield_now().await;
        }
        let packet = match packet::receive(&socket, &mut buffer).await {
            Ok(packet) => packet,
            Err(error) => {
                // Of an earlier reply's making (a port that closed), or want of memory.
                tracing::debug!(%error, "a question could not be received");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if packet.cut {
            continue;
        }
        let reply = match context.reply(&buffer[..packet.length]) {
            Reply::Send(reply) | Reply::Malformed(Some(reply)) => reply,
            Reply::Malformed(None) | Reply::Drop => continue,
        };
        if let Err(error) = packet::send(&socket, &packet, &reply) {
            tracing::debug!(%error, "a reply could not be sent");
        }
    }
}
