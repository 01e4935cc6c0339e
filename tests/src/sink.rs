//! The oracle outside: every frame that leaves the pod, and every byte that is received.
//!
//! It knows nothing of rules. A frame is judged by what it is: the kernel's own neighbour
//! discovery, the gate's (which only ever dials [`GATE_PORT`] here), or an escape.

use std::io::{self, Read as _};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// What a reading of the capture is delimited by: a packet on the observer's own loopback, which
/// queues up behind every frame that came before it.
const DELIMITER: &[u8] = b"exeat reads the capture";

/// What the cable itself may take.
const CABLE: Duration = Duration::from_millis(5);

/// Longer, and the observer is not observing.
const BLIND: Duration = Duration::from_secs(20);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    read: Arc<AtomicU64>,
    asked: AtomicU64,
    delimiters: UdpSocket,
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
        let (socket, delimiters) =
            pod.outside
                .run(Persona::Root, || -> io::Result<(Socket, UdpSocket)> {
                    let socket =
                        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_FRAMES)))?;
                    setsockopt(&socket, sockopt::RcvBufForce, &CAPTURE_BUFFER)?;
                    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
                    Ok((socket, UdpSocket::bind("127.0.0.1:0")?))
                })??;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (frames, read, stop) = (Arc::clone(&frames), Arc::clone(&read), Arc::clone(&stop));
            move || {
                let mut buffer = [0; KEPT];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(length) = (&socket).read(&mut buffer) else {
                        continue;
                    };
                    let frame = &buffer[..length];
                    if frame.get(6..11) == Some(&POD_MAC) {
                        frames
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(frame.to_vec());
                    } else if let Some(number) = delimiter(frame) {
                        read.fetch_max(number, Ordering::SeqCst);
                    }
                }
            }
        });
        Ok(Self {
            frames,
            read,
            asked: AtomicU64::new(0),
            delimiters,
            stop,
            thread: Some(thread),
        })
    }

    /// Every frame of the pod since the last call.
    ///
    /// # Panics
    ///
    /// If the observer is blind, because then nothing was seen to stay in.
    #[must_use]
    pub fn take(&self) -> Vec<Frame> {
        thread::sleep(CABLE);
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let delimiter = [DELIMITER, &number.to_be_bytes()].concat();
        let begun = Instant::now();
        while self.read.load(Ordering::SeqCst) < number {
            assert!(
                begun.elapsed() < BLIND,
                "the capture does not see its own delimiters"
            );
            let _asked_again_below = self.delimiters.send_to(&delimiter, "127.0.0.1:9");
            thread::sleep(Duration::from_millis(1));
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
            let _panicked = thread.join();
        }
    }
}

/// The number of a delimiter, if it is one.
fn delimiter(frame: &[u8]) -> Option<u64> {
    let at = frame
        .windows(DELIMITER.len())
        .position(|window| window == DELIMITER)?;
    let number = frame.get(at + DELIMITER.len()..)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
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
