# What an agent tries from inside of its pod. Each attempt carries the marker; whether it got out is
# for the observer on the node to say. One line of JSON each: its name, what came of it, how long it took.
import json, socket, struct, sys, time

MARKER = b"exeat-escape-attempt"
NODE4, NODE6 = "203.0.113.77", "fd00:203::77"


def tcp(to, port, kind=0, data=MARKER):
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, kind) as s:
        s.settimeout(3)
        s.connect((to, port))
        s.sendall(data)
        return repr(s.recv(200))


def udp(to, port, kind=0):
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM, kind) as s:
        s.settimeout(1)
        s.sendto(MARKER, (to, port))
        return repr(s.recv(200))


def ping(to):
    six = ":" in to
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM, protocol) as s:
        s.settimeout(1)
        s.sendto(struct.pack("!BBHHH", 128 if six else 8, 0, 0, 1, 1) + MARKER, (to, 0))
        return repr(s.recv(200))


def raw(family, kind, protocol, to):
    with socket.socket(family, kind, protocol) as s:
        s.settimeout(1)
        s.sendto(MARKER, (to, 0))
        return "sent"


def frame():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0x0800))
        s.send(b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + MARKER * 3)
        return "sent"


def marked():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
        return "marked"


attempts = []
for name, to in [("A1 a public address", "198.51.100.7"), ("A13 a public address", "2001:db8::7")]:
    attempts.append((name, lambda to=to: tcp(to, 443)))
for port in [22, 25, 5432, 6667, 8443, 9443, 853, 2379, 6443, 10250]:
    for to in [NODE4, NODE6]:
        attempts.append((f"A2 A3 A18 {to} port {port}", lambda to=to, port=port: tcp(to, port)))
for port in [443, 123, 51820, 3478, 853, 9]:
    for to in [NODE4, NODE6, "198.51.100.7", "2001:db8::7"]:
        attempts.append((f"A4 A5 UDP {to} port {port}", lambda to=to, port=port: udp(to, port)))
for to in [NODE4, NODE6]:
    attempts.append((f"A6 UDP-Lite {to}", lambda to=to: udp(to, 9, 136)))
    attempts.append((f"A7 ping {to}", lambda to=to: ping(to)))
    attempts.append((f"A19 MPTCP {to}", lambda to=to: tcp(to, 9443, 262)))
    attempts.append((f"B2 not DNS to {to}", lambda to=to: tcp(to, 53)))
for protocol in [47, 50, 99, 132]:
    attempts.append((f"A8 protocol {protocol}", lambda p=protocol: raw(socket.AF_INET, socket.SOCK_RAW, p, NODE4)))
attempts.append(("A8 SCTP", lambda: tcp(NODE4, 9, 132)))
attempts.append(("A9 a packet mark", marked))
attempts.append(("A10 a frame", frame))
for to in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "169.254.170.2"]:
    attempts.append((f"A17 metadata {to}", lambda to=to: tcp(to, 80, 0, b"GET /latest/ HTTP/1.1\r\nHost: " + to.encode() + b"\r\n\r\n")))
attempts.append(("A16 link-local", lambda: udp("fe80::1%eth0", 9)))
attempts.append(("A16 multicast", lambda: udp("224.0.0.251", 5353)))
for port in [15001, 15053, 15021]:
    for to in ["127.0.0.1", "::1"]:
        attempts.append((f"A27 J3 the gate's port {to} {port}", lambda to=to, port=port: tcp(to, port)))

for name, attempt in attempts:
    begun = time.monotonic()
    try:
        outcome = attempt()
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps({"name": name, "outcome": outcome, "ms": int((time.monotonic() - begun) * 1000)}), flush=True)
