//! What leaves, and what is told of what does not.

use std::fs;
use std::net::{TcpListener, UdpSocket};

use super::support::{Place, USERS, finish, text};

#[test]
fn nothing_leaves_but_through_the_gate() {
    for user in USERS {
        let place = Place::new(user);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let (tcp_port, udp_port) = (
            tcp.local_addr().unwrap().port(),
            udp.local_addr().unwrap().port(),
        );
        let script = format!(
            "import socket\n\
             for address in ('127.0.0.1', '192.0.2.1', '::1', '2001:db8::1'):\n\
             \x20 family = socket.AF_INET6 if ':' in address else socket.AF_INET\n\
             \x20 for kind, port in ((socket.SOCK_STREAM, {tcp_port}), (socket.SOCK_DGRAM, {udp_port})):\n\
             \x20   s = socket.socket(family, kind); s.settimeout(3)\n\
             \x20   try:\n\
             \x20     s.connect((address, port)); s.send(bytes(16)); print(address, kind.name, s.recv(1))\n\
             \x20   except OSError as e: print(address, kind.name, type(e).__name__)\n"
        );
        let output = finish(&mut place.run(&[], &["python3", "-c", &script]));
        let stdout = text(&output.stdout);
        assert_eq!(
            stdout.lines().count(),
            8,
            "{user:?}: {}",
            text(&output.stderr)
        );
        assert!(!stdout.contains("b'"), "{user:?}: {stdout}");
        assert!(tcp.accept().is_err(), "{user:?}: a connection came through");
        assert!(
            udp.recv(&mut [0; 16]).is_err(),
            "{user:?}: a datagram came through"
        );
    }
}

#[test]
fn a_denied_call_is_told_in_one_line() {
    for user in USERS {
        let place = Place::new(user);
        let words = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "https://192.0.2.7/x",
        ];
        let output = finish(&mut place.run(&[], &words));
        let stderr = text(&output.stderr);
        assert_eq!(text(&output.stdout), "403", "{user:?}: {stderr}");
        let told: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("exeat: denied "))
            .collect();
        assert_eq!(told.len(), 1, "{user:?}: {stderr}");
        assert!(
            told[0].contains("GET https://192.0.2.7/x"),
            "{user:?}: {stderr}"
        );
        assert!(
            !stderr.contains('\u{1b}'),
            "{user:?}: no terminal, no colours: {stderr:?}"
        );
        let quiet = finish(&mut place.run(&["--quiet"], &words));
        assert_eq!(text(&quiet.stderr), "", "{user:?}");
        let journal = fs::read_to_string(place.path("journal.jsonl")).unwrap();
        assert!(journal.contains("192.0.2.7"), "{user:?}: {journal}");
    }
}
