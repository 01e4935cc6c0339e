//! Who is calling: the user that owns the agent's end of a connection.
//!
//! The kernel is asked about exactly one socket, by its two addresses, over netlink (`sock_diag`):
//! no capability is needed, nothing is listed, and it costs some microseconds once a connection. It
//! is for the record. In doubt (the socket is closed already, the kernel can't say, the agent is in
//! another network namespace) there is no caller, and none is guessed.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use parking_lot::Mutex;

/// Answers who owns a socket of this network namespace.
#[derive(Debug)]
pub struct Callers {
    asking: Option<Mutex<Asking>>,
    told: AtomicBool,
}

#[derive(Debug)]
struct Asking {
    netlink: OwnedFd,
    sequence: u32,
}

/// `SOCK_DIAG_BY_FAMILY` and flags of `linux/sock_diag.h` and `linux/netlink.h`.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;

/// `nlmsghdr`, and what is behind it: `inet_diag_req_v2` when asking, `inet_diag_msg` in the answer.
const HEADER: usize = 16;
const QUESTION: usize = HEADER + 56;
const ANSWER: usize = HEADER + 72;

/// Where things are in an answer.
const STATE: usize = HEADER + 1;
const PORTS: std::ops::Range<usize> = HEADER + 4..HEADER + 8;
const OWNER: std::ops::Range<usize> = HEADER + 64..HEADER + 68;
const INODE: std::ops::Range<usize> = HEADER + 68..HEADER + 72;

/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTENING: u8 = 10;

const IPPROTO_TCP: u8 = 6;

// === impl Callers ===

impl Callers {
    /// For the network namespace of this thread. Where the kernel does not answer such questions,
    /// nobody is named.
    #[must_use]
    pub fn here() -> Self {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkSockDiag,
        );
        let asking = netlink
            .inspect_err(|error| tracing::warn!(%error, "records will not name callers"))
            .map(|netlink| {
                Mutex::new(Asking {
                    netlink,
                    sequence: 0,
                })
            });
        Self {
            asking: asking.ok(),
            told: AtomicBool::new(false),
        }
    }

    /// For connections whose other ends are in a namespace that is not ours: nobody is named.
    #[must_use]
    pub fn elsewhere() -> Self {
        Self {
            asking: None,
            told: AtomicBool::new(true),
        }
    }

    /// The user that owns the socket bound to `own` and connected to `to`: the addresses as that
    /// socket has them, not as a redirect made them.
    #[must_use]
    pub fn owner(&self, own: SocketAddr, to: SocketAddr) -> Option<u32> {
        let asked = self.asking.as_ref()?.lock().ask(own, to);
        match asked {
            Ok(owner) => owner,
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "asking the kernel for a caller failed; told once");
                }
                None
            }
        }
    }
}

// === impl Asking ===

impl Asking {
    fn ask(&mut self, own: SocketAddr, to: SocketAddr) -> Result<Option<u32>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, own, to);
        let fd = self.netlink.as_raw_fd();
        send(fd, &question, MsgFlags::empty())?;
        // The answer is there when `send` returns. An earlier one that was not read is passed over.
        let mut answer = [0; 512];
        for _ in 0..4 {
            let length = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
            let answer = &answer[..length];
            if length >= HEADER && word(answer, 8..12) == self.sequence {
                return read(answer, own, to);
            }
        }
        Ok(None)
    }
}

fn question(sequence: u32, own: SocketAddr, to: SocketAddr) -> [u8; QUESTION] {
    let mut bytes = [0; QUESTION];
    let family = match own.ip().to_canonical() {
        IpAddr::V4(_) => nix::libc::AF_INET,
        IpAddr::V6(_) => nix::libc::AF_INET6,
    };
    bytes[0..4].copy_from_slice(&u32::try_from(QUESTION).unwrap_or(0).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let ask = &mut bytes[HEADER..];
    ask[0] = u8::try_from(family).unwrap_or(0);
    ask[1] = IPPROTO_TCP;
    // In every state.
    ask[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    ask[8..10].copy_from_slice(&own.port().to_be_bytes());
    ask[10..12].copy_from_slice(&to.port().to_be_bytes());
    address(&mut ask[12..28], own.ip());
    address(&mut ask[28..44], to.ip());
    // No interface, and no cookie of an earlier answer.
    ask[48..56].copy_from_slice(&u64::MAX.to_ne_bytes());
    bytes
}

fn address(place: &mut [u8], address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => place[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => place.copy_from_slice(&v6.octets()),
    }
}

/// The owner, if the answer is about that socket and somebody still has it.
fn read(answer: &[u8], own: SocketAddr, to: SocketAddr) -> Result<Option<u32>, Errno> {
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if kind == ERROR {
        let code = answer.get(HEADER..HEADER + 4).map_or(0, |_| {
            // The kernel's codes are negative.
            word(answer, HEADER..HEADER + 4)
                .cast_signed()
                .wrapping_neg()
        });
        return match Errno::from_raw(code) {
            // No such socket: closed by now, or in another namespace.
            Errno::ENOENT if to.port() != 0 => Ok(None),
            other => Err(other),
        };
    }
    if kind != BY_FAMILY || answer.len() < ANSWER {
        return Ok(None);
    }
    let mut ports = [0; 4];
    ports[..2].copy_from_slice(&own.port().to_be_bytes());
    ports[2..].copy_from_slice(&to.port().to_be_bytes());
    // A listener is not the caller, and a socket that nobody has open any more is said to be
    // root's: it has no inode.
    if answer[PORTS] != ports || answer[STATE] == LISTENING || word(answer, INODE) == 0 {
        return Ok(None);
    }
    Ok(Some(word(answer, OWNER)))
}

fn word(bytes: &[u8], at: std::ops::Range<usize>) -> u32 {
    let mut word = [0; 4];
    if let Some(found) = bytes.get(at) {
        word.copy_from_slice(found);
    }
    u32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_socket_is_told_and_nobody_elses() {
        let callers = Callers::here();
        let me = nix::unistd::Uid::effective().as_raw();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let to = listener.local_addr().unwrap();
            let agent = TcpStream::connect(to).unwrap();
            let (_gate, own) = listener.accept().unwrap();
            assert_eq!(callers.owner(own, to), Some(me), "{listen}");
            // Another connection, no connection, the listener itself.
            let other = SocketAddr::new(own.ip(), own.port().wrapping_add(1));
            assert_eq!(callers.owner(other, to), None);
            let nowhere = SocketAddr::new(to.ip(), 9);
            assert_eq!(callers.owner(to, nowhere), None);
            drop(agent);
            assert_eq!(callers.owner(own, to), None, "it is closed");
            assert_eq!(Callers::elsewhere().owner(own, to), None);
        }
    }

    #[test]
    fn an_answer_of_any_length_is_read_without_harm() {
        let (own, to) = (
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        for kind in [BY_FAMILY, ERROR, 3] {
            for length in HEADER..200 {
                let mut answer = vec![0xff; length];
                answer[4..6].copy_from_slice(&kind.to_ne_bytes());
                assert_ne!(read(&answer, own, to), Ok(Some(0)));
            }
        }
    }

    /// Not a benchmark: an upper bound that a busy machine keeps, and the figure for who looks.
    #[test]
    #[expect(clippy::print_stdout, reason = "the figure is what it is for")]
    fn it_costs_little() {
        let callers = Callers::here();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let _agent = TcpStream::connect(to).unwrap();
        let own = listener.accept().unwrap().1;
        let mut each: Vec<_> = (0..2000)
            .map(|_| {
                let start = std::time::Instant::now();
                assert!(callers.owner(own, to).is_some());
                start.elapsed()
            })
            .collect();
        each.sort_unstable();
        println!("median {:?}, 99 in 100 {:?}", each[1000], each[1980]);
        assert!(each[1000] < std::time::Duration::from_micros(200));
    }
}
