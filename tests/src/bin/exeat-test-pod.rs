//! Processes of the confinement tests that must be killable: init, and a stand-in for the gate.
//!
//! `out` tries to leave from wherever it is started, `inside` does what its words say. `init …` is `exeat-init …`. `stub` listens where the gate would, says `GATE <destination>` to
//! whoever arrives, and dials the world when it is told to.

#![allow(clippy::print_stdout)]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use exeat_tests::netns::{WORLD_V4, WORLD_V6};
use exeat_tests::sink::GATE_PORT;
use socket2::SockRef;

/// A test never takes longer; a stub that is forgotten ends by itself.
const LIFE: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let _program = arguments.next();
    match arguments
        .next()
        .as_deref()
        .and_then(std::ffi::OsStr::to_str)
    {
        Some("init") => exeat_init::command::main(
            std::iter::once(std::ffi::OsString::from("exeat-init")).chain(arguments),
        ),
        Some("stub") => match stub() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("exeat-test-pod: {error}");
                ExitCode::FAILURE
            }
        },
        Some("out") => out(),
        Some("inside") => {
            let words: Vec<String> = std::env::args().skip(2).collect();
            exeat_tests::inside::main(&words)
        }
        _ => ExitCode::from(64),
    }
}

/// Tries to get out from a namespace of its own making: how many tries succeeded.
fn out() -> ExitCode {
    let mut escaped = 0;
    for to in [
        "203.0.113.9:443",
        "[2001:db8::9]:443",
        "10.77.0.1:4000",
        "[fd77::1]:4000",
    ] {
        let Ok(to) = to.parse::<SocketAddr>() else {
            return ExitCode::from(64);
        };
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sent =
            UdpSocket::bind(any).and_then(|socket| socket.send_to(b"the agent's secret", to));
        escaped += u8::from(sent.is_ok());
        escaped += u8::from(TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_ok());
    }
    println!("escaped {escaped}");
    ExitCode::SUCCESS
}

fn stub() -> io::Result<()> {
    for address in ["127.0.0.1", "::1"] {
        for port in [15001, 15053] {
            let listener = TcpListener::bind((address, port))?;
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || serve(stream));
                }
            });
        }
        let socket = UdpSocket::bind((address, 15053))?;
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut answer = b"GATE ".to_vec();
                answer.extend_from_slice(&buffer[..length]);
                let _gone = socket.send_to(&answer, from);
            }
        });
    }
    // The kubelet's question, on every address.
    let health = TcpListener::bind("[::]:15021")?;
    thread::spawn(move || {
        for mut stream in health.incoming().flatten() {
            let _gone = stream.write_all(b"GATE health");
        }
    });
    println!("ready");
    io::stdout().flush()?;
    thread::sleep(LIFE);
    Ok(())
}

/// Says where the connection was going, then does as it is told: `t` and `u` dial the world.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let socket = SockRef::from(&stream);
    let local = stream.local_addr()?;
    let original = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = original
        .ok()
        .and_then(|address| address.as_socket())
        .unwrap_or(local);
    stream.write_all(format!("GATE {original}\n").as_bytes())?;
    let mut order = [0; 1];
    while stream.read(&mut order)? == 1 {
        for world in [WORLD_V4, WORLD_V6] {
            let address: IpAddr = world.parse().map_err(io::Error::other)?;
            let to = SocketAddr::new(address, GATE_PORT);
            let answer = match order[0] {
                b't' => dial(to),
                b'u' => ask(to),
                _ => Ok("?".to_owned()),
            };
            stream.write_all(
                format!("{}\n", answer.unwrap_or_else(|error| error.to_string())).as_bytes(),
            )?;
        }
    }
    Ok(())
}

fn dial(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"gate bytes")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn ask(to: SocketAddr) -> io::Result<String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(to)?;
    socket.send(b"gate bytes")?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
