//! The gate looks, again and again, whether the confinement is still around it.
//!
//! It runs as the one user whose TCP and UDP the rules let out, and without any capability, so it
//! can't try to get out as the agent: `exeat-init` did that before the agent began. What it can try
//! is what the rules refuse to everybody, itself included: its own redirect and DNS ports, on which
//! it is listening and must not reach itself, and every protocol but TCP and UDP. Each of these
//! succeeds, or is not refused at once, as soon as the rules are gone or were put aside by an accept
//! before them. In doubt (an attempt that could not be made, and none in its place) it fails.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often. A change of the rules shows after at most so long.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// A refusal inside one kernel takes microseconds; only what is not refused waits so long.
const PATIENCE: Duration = Duration::from_millis(250);

/// Set aside for documentation: nobody is there, whom a packet that got out could harm.
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

const UDP_LITE: i32 = 136;

/// What a test found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether everything that must be refused was.
    pub passed: bool,
    /// How many attempts were refused, or which was not.
    pub detail: String,
    /// When.
    pub at: SystemTime,
}

/// The test, and what it found last.
#[derive(Debug)]
pub struct SelfTest {
    attempts: Vec<Attempt>,
    latest: Mutex<Option<Finding>>,
}

/// One thing that the rules must refuse.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    kind: Kind,
    to: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A connection to a port on which the gate listens.
    Connect,
    /// A datagram to a port on which the gate listens.
    Datagram,
    /// A datagram of a protocol that nobody may use.
    UdpLite,
}

/// What became of an attempt.
enum Came {
    Refused,
    /// There is no such socket or no such address here, so there is nothing to refuse.
    Moot,
    Through(&'static str),
}

// === impl Finding ===

impl Finding {
    /// When, as records write times (RFC 3339, UTC).
    #[must_use]
    pub fn at_text(&self) -> String {
        OffsetDateTime::from(self.at)
            .format(&Rfc3339)
            .unwrap_or_default()
    }
}

// === impl SelfTest ===

impl SelfTest {
    /// A test for a gate that listens for redirected connections and for DNS at these addresses.
    #[must_use]
    pub fn new(tcp: &[SocketAddr], udp: &[SocketAddr]) -> Arc<Self> {
        let listening = |kind| move |to: &SocketAddr| Attempt { kind, to: *to };
        let mut attempts: Vec<_> = tcp.iter().map(listening(Kind::Connect)).collect();
        attempts.extend(udp.iter().map(listening(Kind::Datagram)));
        for nobody in [NOBODY_V4, NOBODY_V6] {
            attempts.push(Attempt {
                kind: Kind::UdpLite,
                to: SocketAddr::new(nobody, 443),
            });
        }
        Arc::new(Self {
            attempts,
            latest: Mutex::new(None),
        })
    }

    /// What was found last; nothing before the first test.
    #[must_use]
    pub fn latest(&self) -> Option<Finding> {
        self.latest.lock().clone()
    }

    /// Whether the last test passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.latest
            .lock()
            .as_ref()
            .is_some_and(|found| found.passed)
    }

    /// Tests, and keeps what was found. Waits where something is not refused: not for a thread that
    /// serves.
    pub fn run(&self) -> Finding {
        let found = self.look();
        let before = self.latest.lock().replace(found.clone());
        if before.is_none_or(|before| before.passed != found.passed) {
            if found.passed {
                tracing::info!(detail = found.detail, "the self-test passed");
            } else {
                tracing::error!(
                    detail = found.detail,
                    "the self-test failed: the confinement is not there, or was changed"
                );
            }
        }
        found
    }

    fn look(&self) -> Finding {
        let mut refused = 0;
        let mut through = Vec::new();
        for attempt in &self.attempts {
            match attempt.made() {
                Came::Refused => refused += 1,
                Came::Moot => {}
                Came::Through(how) => {
                    through.push(format!("{} to {} {how}", attempt.kind.name(), attempt.to));
                }
            }
        }
        let passed = through.is_empty() && refused > 0;
        let detail = if !through.is_empty() {
            through.join("; ")
        } else if refused == 0 {
            "no attempt could be made, so nothing is shown".to_owned()
        } else {
            format!("{refused} attempts refused")
        };
        Finding {
            passed,
            detail,
            at: SystemTime::now(),
        }
    }
}

// === impl Attempt ===

impl Attempt {
    fn made(self) -> Came {
        match self.try_it() {
            Ok(()) if self.kind == Kind::Connect => Came::Through("was accepted"),
            Ok(()) => Came::Through("was answered"),
            Err(error) => self.judge(&error),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what must be refused is tried; nothing is sent by what is not"
    )]
    fn try_it(self) -> io::Result<()> {
        let (kind, protocol) = match self.kind {
            Kind::Connect => (Type::STREAM, Protocol::TCP),
            Kind::Datagram => (Type::DGRAM, Protocol::UDP),
            Kind::UdpLite => (Type::DGRAM, Protocol::from(UDP_LITE)),
        };
        let mut socket = Socket::new(Domain::for_address(self.to), kind, Some(protocol))?;
        if self.kind == Kind::Connect {
            return socket.connect_timeout(&self.to.into(), PATIENCE);
        }
        socket.connect(&self.to.into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"exeat self-test")?;
        socket.read(&mut [0; 64]).map(drop)
    }

    fn judge(self, error: &io::Error) -> Came {
        use nix::errno::Errno;
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        match (self.kind, errno) {
            // Nothing of the kind in this kernel or this pod. A route that is not there refuses
            // nothing: the rules are asked only about packets that have one.
            (
                _,
                Errno::EAFNOSUPPORT
                | Errno::EPROTONOSUPPORT
                | Errno::EADDRNOTAVAIL
                | Errno::ENETUNREACH,
            ) => Came::Moot,
            _ if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Came::Through("was not refused")
            }
            (Kind::Connect, Errno::ECONNREFUSED) => Came::Refused,
            // The send itself, or the answer to it, as the family and the back end have it.
            (
                Kind::Datagram | Kind::UdpLite,
                Errno::EPERM | Errno::EACCES | Errno::EHOSTUNREACH | Errno::ECONNREFUSED,
            ) => Came::Refused,
            _ => Came::Through("failed in another way than by a refusal"),
        }
    }
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "a connection",
            Self::Datagram => "a datagram",
            Self::UdpLite => "a UDP-Lite datagram",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn without_a_confinement_it_fails_and_says_what_came_through() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let test = SelfTest::new(&[tcp_at], &[udp_at]);
        assert_eq!((test.latest(), test.passed()), (None, false));
        let found = test.run();
        assert!(!found.passed);
        assert!(found.detail.contains("was accepted"), "{found:?}");
        assert!(found.detail.contains("was not refused"), "{found:?}");
        assert_eq!(test.latest(), Some(found.clone()));
        assert!(found.at_text().ends_with('Z'));
    }

    #[test]
    fn nothing_tried_is_nothing_shown() {
        let test = SelfTest {
            attempts: Vec::new(),
            latest: Mutex::default(),
        };
        assert!(!test.run().passed);
    }
}
