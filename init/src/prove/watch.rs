//! Looks at every packet that leaves the namespace while the attempts are made.
//!
//! gVisor drops some packets without a word to who sent them, and silence alone is also what an
//! escape looks like. There a packet socket sees what leaves by an interface, so the proof does not
//! have to guess. In doubt (the socket does not see a packet that is known to have been sent) nothing
//! is proven.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::InitError;

/// What the attempts carry where they carry anything.
pub(super) const MARK: &[u8] = b"exeat-init";

/// Sent over loopback, to show that the watcher sees.
const CONTROL: &[u8] = b"the watcher is awake";

/// Loopback's number in every namespace.
const LOOPBACK_INDEX: usize = 1;

/// `ETH_P_ALL` in network order.
const ALL_FRAMES: i32 = 0x0300;

/// A packet is given to the watcher while it is sent; only a busy node takes longer.
const AT_ONCE: Duration = Duration::from_millis(2);

/// More packets than all attempts make: a storm must not keep the proof from ending.
const MOST: usize = 10_000;

/// How long the control may take.
const AWAKE: Duration = Duration::from_secs(2);

/// An open packet socket.
pub(super) struct Watch {
    socket: Socket,
}

// === impl Watch ===

impl Watch {
    /// Starts to watch, and shows that it sees.
    pub(super) fn start() -> Result<Self, InitError> {
        let unproven =
            |error: io::Error| InitError::Unproven(format!("watching what leaves: {error}"));
        let open = || -> io::Result<Self> {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_FRAMES)))?;
            socket.set_read_timeout(Some(AT_ONCE))?;
            UdpSocket::bind("127.0.0.1:0")?.send_to(CONTROL, "127.0.0.1:9")?;
            Ok(Self { socket })
        };
        let watch = open().map_err(unproven)?;
        // Without an interface nothing leaves, and that is seen as well.
        let started = Instant::now();
        while started.elapsed() < AWAKE {
            if watch
                .next()
                .is_some_and(|(index, frame)| index == LOOPBACK_INDEX && holds(&frame, CONTROL))
            {
                return Ok(watch);
            }
        }
        Err(InitError::Unproven(
            "watching what leaves: the watcher does not see a packet on loopback".to_owned(),
        ))
    }

    /// Whether something with the mark, or to this address, has left since the last call, and by
    /// which interface.
    pub(super) fn saw(&self, to: Option<IpAddr>) -> Option<String> {
        let octets = to.map(|to| match to {
            IpAddr::V4(to) => to.octets().to_vec(),
            IpAddr::V6(to) => to.octets().to_vec(),
        });
        let mut seen = None;
        for (index, frame) in std::iter::from_fn(|| self.next()).take(MOST) {
            let about_us = holds(&frame, MARK)
                || octets
                    .as_ref()
                    .is_some_and(|octets| holds(&frame, octets.as_slice()));
            if index != LOOPBACK_INDEX && about_us {
                seen = Some(format!("a frame of it left by {}", interface(index)));
            }
        }
        seen
    }

    /// The same, of any attempt, after so long.
    pub(super) fn saw_late(&self, patience: Duration) -> Option<String> {
        std::thread::sleep(patience);
        self.saw(None)
    }

    fn next(&self) -> Option<(usize, Vec<u8>)> {
        let mut buffer = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let index = from.map_or(0, |from| from.ifindex());
                    return Some((index, buffer[..length].to_vec()));
                }
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

fn holds(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}

fn interface(index: usize) -> String {
    if_nameindex()
        .ok()
        .and_then(|listed| {
            listed
                .iter()
                .find(|entry| usize::try_from(entry.index()) == Ok(index))
                .map(|entry| entry.name().to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| format!("interface {index}"))
}
