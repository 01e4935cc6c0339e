//! A pod with rules, a stand-in gate, a world that answers, and the oracle.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use exeat_init::Backend;
use exeat_tests::netns::{Persona, Pod};
use exeat_tests::sink::{Capture, GATE_PORT};
use socket2::{Domain, Protocol, Socket, Type};

use crate::attempts;

/// What the agent tries to get out.
pub const MARKER: &[u8] = b"the agent's secret";

/// A refusal that takes longer is a client that hangs.
pub const PROMPT: Duration = Duration::from_millis(500);

/// Where an attempt ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reach {
    /// The kernel said no.
    Refused(ErrorKind),
    /// There is no such socket.
    NoSocket(ErrorKind),
    /// At the gate, which knows where it was going.
    Gate(SocketAddr),
    /// Taken by the kernel, or by somebody who isn't the gate.
    Sent,
    /// Nobody answered.
    Silence,
}

/// A pod under test. Its processes end with it.
pub struct Confined {
    pub pod: Pod,
    pub capture: Capture,
    pub backend: Backend,
}

/// A process that is killed when it is dropped.
pub struct Killed(pub Child);

/// A world that answers TCP and UDP.
pub struct World {
    stop: Arc<AtomicBool>,
}

// === impl Confined ===

impl Confined {
    pub fn new(backend: Backend) -> Self {
        let mut confined = Self::bare();
        confined.backend = backend;
        confined.confine(backend);
        drop(confined.capture.take());
        confined
    }

    /// No rules at all.
    pub fn bare() -> Self {
        let pod = Pod::new().expect("a pod can be made; this needs root");
        let capture = Capture::start(&pod).expect("frames can be captured");
        Self {
            pod,
            capture,
            backend: Backend::Nft,
        }
    }

    pub fn confine(&self, backend: Backend) {
        self.pod
            .inside
            .run(Persona::Root, || {
                exeat_init::apply(&exeat_init::Plan::default(), backend)
                    .expect("the rules are applied");
            })
            .unwrap();
    }

    /// Runs `exeat-init` and returns what it printed.
    pub fn init(&self, arguments: &[&str]) -> Result<String, (Option<i32>, String)> {
        let mut all = vec!["init"];
        all.extend(arguments);
        all.extend(["--backend", self.backend.as_str()]);
        let output = self.pod.inside.output(PROGRAM, &all).unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err((
                output.status.code(),
                String::from_utf8(output.stderr).unwrap(),
            ))
        }
    }

    /// A stand-in gate under the sidecar's UID, listening.
    pub fn stub(&self) -> Killed {
        let mut child = self
            .pod
            .inside
            .run(Persona::Root, || {
                Command::new(PROGRAM)
                    .arg("stub")
                    .uid(64_100)
                    .gid(64_100)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Killed(child)
    }

    /// Answers on the gate's port of the world and on 4000.
    pub fn world(&self) -> World {
        let stop = Arc::new(AtomicBool::new(false));
        for port in [GATE_PORT, 4000] {
            let (tcp, udp) = self
                .pod
                .outside
                .run(Persona::Root, || {
                    (
                        TcpListener::bind(("::", port)).unwrap(),
                        UdpSocket::bind(("::", port)).unwrap(),
                    )
                })
                .unwrap();
            tcp.set_nonblocking(true).unwrap();
            udp.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let stopped = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut open = Vec::new();
                let mut buffer = [0; 2048];
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok((mut stream, _)) = tcp.accept() {
                        let _gone = stream.write_all(b"world");
                        open.push(stream);
                    }
                    if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                        let _gone = udp.send_to(b"world", from);
                    }
                }
            });
        }
        World { stop }
    }

    /// Every attempt, and the oracle's word on each.
    pub fn nothing_escapes(&self, persona: Persona, gate: bool) {
        for attempt in attempts::all() {
            let started = Instant::now();
            let reach = self.pod.inside.run(persona, || (attempt.run)()).unwrap();
            let took = started.elapsed();
            let name = attempt.name;
            match (&reach, attempt.captured) {
                (Reach::Gate(to), Some(wanted)) if gate => assert_eq!(*to, wanted, "{name}"),
                (Reach::Refused(_), None) | (Reach::NoSocket(_), _) => {}
                (Reach::Refused(ErrorKind::ConnectionRefused), Some(_)) if !gate => {}
                _ if attempt.may_be_silent => {}
                _ => panic!("{persona:?}, gate {gate}, {name}: {reach:?}"),
            }
            assert!(
                took < PROMPT || attempt.may_be_silent,
                "{name} took {took:?}"
            );
        }
        let escapes = self.capture.escapes();
        assert!(
            escapes.is_empty(),
            "{persona:?}, gate {gate}: out came {escapes:?}"
        );
    }
}

/// Init and the stand-in gate.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_exeat-test-pod");

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// What an agent does.

/// Connects, sends the marker, and reads who answers.
pub fn tcp(to: SocketAddr) -> Reach {
    let socket = match Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)) {
        Ok(socket) => socket,
        Err(error) => return Reach::NoSocket(error.kind()),
    };
    connected(socket, to)
}

/// The same with a socket of any kind.
pub fn connected(socket: Socket, to: SocketAddr) -> Reach {
    if let Err(error) = socket.connect_timeout(&to.into(), PROMPT) {
        return if error.kind() == ErrorKind::TimedOut {
            Reach::Silence
        } else {
            Reach::Refused(error.kind())
        };
    }
    let mut stream = TcpStream::from(socket);
    let _cut = stream.write_all(MARKER);
    let said = read(&mut stream);
    match said
        .strip_prefix("GATE ")
        .and_then(|to| to.lines().next()?.parse().ok())
    {
        Some(to) => Reach::Gate(to),
        None => Reach::Sent,
    }
}

/// Sends the marker and, where the kernel takes it, waits for the gate's word.
pub fn udp(to: SocketAddr) -> Reach {
    let socket = match Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)) {
        Ok(socket) => socket,
        Err(error) => return Reach::NoSocket(error.kind()),
    };
    let _not_a_datagram = socket.set_broadcast(true);
    datagram(&socket, to)
}

/// The same with a socket of any kind.
pub fn datagram(socket: &Socket, to: SocketAddr) -> Reach {
    if let Err(error) = socket
        .connect(&to.into())
        .and_then(|()| socket.send(MARKER))
    {
        return Reach::Refused(error.kind());
    }
    socket.set_read_timeout(Some(PROMPT / 2)).unwrap();
    let mut buffer = [0; 2048];
    match (&*socket).read(&mut buffer) {
        Ok(length) if buffer[..length].starts_with(b"GATE ") => Reach::Gate(to),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Reach::Refused(error.kind()),
        _ => Reach::Sent,
    }
}

/// Tells the stand-in gate, reached through a redirected connection, to dial the world.
pub fn order(to: &str, orders: &[u8]) -> Vec<String> {
    let stream = TcpStream::connect(to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    let mut lines = vec![line()];
    for order in orders {
        (&stream).write_all(&[*order]).unwrap();
        lines.extend([line(), line()]);
    }
    lines
}

/// One read, as text.
pub fn read(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut buffer = [0; 256];
    let length = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A connection, or why not, within a second.
pub fn connect(to: (&str, u16)) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to.0.parse().unwrap(), to.1);
    TcpStream::connect_timeout(&to, Duration::from_secs(1))
}
