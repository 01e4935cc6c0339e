//! What an agent tries from where a test can't send a thread: inside a sandbox with a kernel of its
//! own. Each attempt is a word and a destination; each result is a line.

#![allow(clippy::print_stdout, reason = "the lines are the results")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// What the agent tries to get out.
pub const MARKER: &[u8] = b"the agent's secret";

/// How long an attempt waits for an answer. A refusal inside one kernel takes less.
const PATIENCE: Duration = Duration::from_millis(300);

/// A test never takes longer; what is forgotten ends by itself.
const LIFE: Duration = Duration::from_mins(2);

/// One attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// How.
    pub way: Way,
    /// Where to; the port is of no use to a ping.
    pub to: SocketAddr,
}

/// How something is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A connection, and the marker on it.
    Tcp,
    /// A datagram.
    Udp,
    /// The echo request that needs no right.
    Ping,
    /// An IP packet of a protocol that nobody has heard of.
    Raw,
}

/// What became of it, as the agent sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Result {
    /// An error at once.
    Refused,
    /// There is no such socket for it.
    NoSocket,
    /// Taken, and no answer.
    Silence,
    /// Taken, and these bytes came back; none is a connection that was closed.
    Answered(Vec<u8>),
}

/// `try ATTEMPT…`, `repeat SECONDS ATTEMPT…`, `ask NAME SERVER…`, `serve PORT`, `hold ADDRESS`, `prove`.
#[must_use]
pub fn main(words: &[String]) -> ExitCode {
    let done = match words.split_first() {
        Some((word, rest)) if word == "try" => attempts(rest).map(|attempts| {
            for attempt in attempts {
                println!("{attempt} {}", attempt.make());
            }
        }),
        Some((word, rest)) if word == "repeat" => repeat(rest),
        Some((word, [name, servers @ ..])) if word == "ask" => {
            for server in servers {
                let answer = ask(name, server)
                    .map_or_else(|error| error.to_string(), |()| "answered".to_owned());
                println!("{server} {answer}");
            }
            Ok(())
        }
        Some((word, [port])) if word == "serve" => serve(port),
        Some((word, [to])) if word == "hold" => hold(to),
        Some((word, [])) if word == "prove" => {
            match exeat_init::prove_watching(&exeat_init::Plan::default()) {
                Ok(_) => println!("proven"),
                Err(error) => println!("{}: {error}", error.cause()),
            }
            Ok(())
        }
        _ => Err(io::Error::other("no such words")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exeat-test-pod inside: {error}");
            ExitCode::FAILURE
        }
    }
}

fn attempts(words: &[String]) -> io::Result<Vec<Attempt>> {
    words.iter().map(|word| word.parse()).collect()
}

/// Over and over for so long: how often, and what answered.
fn repeat(words: &[String]) -> io::Result<()> {
    let (seconds, words) = words.split_first().ok_or(ErrorKind::InvalidInput)?;
    let (seconds, attempts) = (seconds.parse().map_err(io::Error::other)?, attempts(words)?);
    // A pod is told to end, and this agent does not.
    let ignored = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGTERM);
    ignored.thread_block().map_err(io::Error::from)?;
    println!("begun");
    io::stdout().flush()?;
    let started = Instant::now();
    let mut made = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        for attempt in &attempts {
            let _whatever = attempt.make();
            made += 1;
        }
    }
    println!("made {made}");
    Ok(())
}

/// Answers one caller over TCP.
fn serve(port: &str) -> io::Result<()> {
    let port = port.parse().map_err(io::Error::other)?;
    let server = TcpListener::bind(("0.0.0.0", port))?;
    println!("begun");
    io::stdout().flush()?;
    let (mut caller, _) = server.accept()?;
    let mut buffer = [0; 64];
    let length = caller.read(&mut buffer)?;
    caller.write_all(b"served ")?;
    caller.write_all(&buffer[..length])?;
    Ok(())
}

/// Asks a server for a name's IPv4 address, as a resolver library does: over a connected socket.
fn ask(name: &str, server: &str) -> io::Result<()> {
    let server: IpAddr = server.parse().map_err(io::Error::other)?;
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let mut question = vec![0xe8, 0xa7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE * 10))?;
    socket.connect((server, 53))?;
    socket.send(&question)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    // The same question, and at least one answer to it.
    if length > question.len() && answer[..2] == question[..2] && answer[6..8] != [0, 0] {
        Ok(())
    } else {
        Err(io::Error::other("answered otherwise"))
    }
}

/// Keeps a connection open.
fn hold(to: &str) -> io::Result<()> {
    let _open = TcpStream::connect(to)?;
    println!("begun");
    io::stdout().flush()?;
    std::thread::sleep(LIFE);
    Ok(())
}

// === impl Attempt ===

impl Attempt {
    /// Makes it.
    #[must_use]
    pub fn make(self) -> Result {
        match self.try_it() {
            Ok(result) => result,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Result::Silence
            }
            Err(_) => Result::Refused,
        }
    }

    fn try_it(self) -> io::Result<Result> {
        let icmp = if self.to.is_ipv4() {
            Protocol::ICMPV4
        } else {
            Protocol::ICMPV6
        };
        let (kind, protocol) = match self.way {
            Way::Tcp => (Type::STREAM, Protocol::TCP),
            Way::Udp => (Type::DGRAM, Protocol::UDP),
            Way::Ping => (Type::DGRAM, icmp),
            Way::Raw => (Type::RAW, Protocol::from(253)),
        };
        let Ok(mut socket) = Socket::new(Domain::for_address(self.to), kind, Some(protocol)) else {
            return Ok(Result::NoSocket);
        };
        socket.set_read_timeout(Some(PATIENCE))?;
        if self.way == Way::Tcp {
            socket.connect_timeout(&self.to.into(), PATIENCE)?;
        } else {
            let _not_for_pings = socket.set_broadcast(true);
            socket.connect(&self.to.into())?;
        }
        let echo = if self.to.is_ipv4() { 8 } else { 128 };
        let mut payload = match self.way {
            Way::Ping => vec![echo, 0, 0, 0, 0, 1, 0, 1],
            _ => Vec::new(),
        };
        payload.extend_from_slice(MARKER);
        socket.write_all(&payload)?;
        let mut buffer = [0; 2048];
        let length = socket.read(&mut buffer)?;
        Ok(Result::Answered(buffer[..length].to_vec()))
    }
}

impl FromStr for Attempt {
    type Err = io::Error;

    fn from_str(word: &str) -> io::Result<Self> {
        let (way, to) = word.split_once('/').ok_or(ErrorKind::InvalidInput)?;
        let way = match way {
            "tcp" => Way::Tcp,
            "udp" => Way::Udp,
            "ping" => Way::Ping,
            "raw" => Way::Raw,
            _ => return Err(ErrorKind::InvalidInput.into()),
        };
        Ok(Self {
            way,
            to: to.parse().map_err(io::Error::other)?,
        })
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.way {
            Way::Tcp => "tcp",
            Way::Udp => "udp",
            Way::Ping => "ping",
            Way::Raw => "raw",
        };
        write!(f, "{way}/{}", self.to)
    }
}

// === impl Result ===

impl std::fmt::Display for Result {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::NoSocket => f.write_str("no socket"),
            Self::Silence => f.write_str("silence"),
            Self::Answered(bytes) => write!(f, "answered {}", String::from_utf8_lossy(bytes)),
        }
    }
}
