//! The oracle outside: every frame that leaves the pod, and every byte that is received.
//!
//! It knows nothing of rules. A frame is judged by what it is: the kernel's own neighbour
//! discovery, the gate's (which only ever dials [`GATE_PORT`] here), or an escape.

use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::{POD_MAC, Persona, Pod};

/// The only port of the world that the stand-in gate dials.
pub const GATE_PORT: u16 = 7;

/// The only port on which the agent of the tests serves inbound callers.
pub const INBOUND_PORT: u16 = 8080;

/// `ETH_P_ALL` as the kernel wants it: in network order.
const ALL_FRAMES: i32 = 0x0300;

/// A flood of a few seconds fits; a capture that lost frames would be no oracle.
const CAPTURE_BUFFER: usize = 64 << 20;

/// What is kept of a frame.
const KEPT: usize = 2048;

/// How long the line must be silent before the capture is believed to be complete.
const SILENCE: Duration = Duration::from_millis(40);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    last: Arc<Mutex<Instant>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A frame that left the pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// ARP, or ICMPv6 neighbour discovery.
    pub neighbour: bool,
    /// IP protocol, if it is IP.
    pub protocol: Option<u8>,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// All of it.
    pub bytes: Vec<u8>,
}

// === impl Capture ===

impl Capture {
    /// Captures whatever arrives at the world's end of every cable.
    pub fn start(pod: &Pod) -> io::Result<Self> {
        let socket = pod.outside.run(Persona::Root, || -> io::Result<Socket> {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_FRAMES)))?;
            setsockopt(&socket, sockopt::RcvBufForce, &CAPTURE_BUFFER)?;
            socket.set_read_timeout(Some(Duration::from_millis(5)))?;
            Ok(socket)
        })??;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let last = Arc::new(Mutex::new(Instant::now()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (frames, last, stop) = (Arc::clone(&frames), Arc::clone(&last), Arc::clone(&stop));
            move || {
                let mut buffer = [0; KEPT];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(length) = (&socket).read(&mut buffer) else {
                        continue;
                    };
                    let frame = &buffer[..length];
                    if frame.get(6..11) == Some(&POD_MAC) {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                        frames
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(frame.to_vec());
                    }
                }
            }
        });
        Ok(Self {
            frames,
            last,
            stop,
            thread: Some(thread),
        })
    }

    /// Every frame of the pod since the last call, once the line is silent.
    #[must_use]
    pub fn take(&self) -> Vec<Frame> {
        let begun = Instant::now();
        loop {
            let last = (*self.last.lock().unwrap_or_else(PoisonError::into_inner)).max(begun);
            if last.elapsed() >= SILENCE || begun.elapsed() > Duration::from_secs(5) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let taken =
            std::mem::take(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().map(Frame::new).collect()
    }

    /// The frames that had no business to leave.
    #[must_use]
    pub fn escapes(&self) -> Vec<Frame> {
        self.take()
            .into_iter()
            .filter(|frame| !frame.is_innocent())
            .collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Frame ===

impl Frame {
    fn new(bytes: Vec<u8>) -> Self {
        let kind = bytes
            .get(12..14)
            .map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        let byte = |at: usize| bytes.get(at).copied();
        let (protocol, payload) = match kind {
            0x0800 => (byte(23), 14 + usize::from(byte(14).unwrap_or(0) & 15) * 4),
            0x86dd => (byte(20), 54),
            _ => (None, 14),
        };
        let port = |at: usize| {
            Some(u16::from_be_bytes([
                byte(payload + at)?,
                byte(payload + at + 1)?,
            ]))
        };
        let ports = if matches!(protocol, Some(6 | 17)) {
            port(0).zip(port(2))
        } else {
            None
        };
        let discovery = protocol == Some(58) && matches!(byte(payload), Some(133 | 135 | 136));
        Self {
            neighbour: kind == 0x0806 || discovery,
            protocol,
            ports,
            bytes,
        }
    }

    /// Neighbour discovery, the gate's own, or an answer to an inbound caller.
    #[must_use]
    pub fn is_innocent(&self) -> bool {
        self.neighbour
            || self
                .ports
                .is_some_and(|(from, to)| to == GATE_PORT || from == INBOUND_PORT)
    }

    /// Whether these bytes are in it.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.bytes
            .windows(bytes.len())
            .any(|window| window == bytes)
    }
}
