#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("not an address: {text}"))
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn dialled(addresses: &[&str], allowed: &[&str]) -> Vec<String> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| ip(a)).collect();
    vet(&addresses, 443, &nets(allowed))
        .map(|vetted| vetted.iter().map(|v| v.addr().ip().to_string()).collect())
        .unwrap_or_default()
}

#[test]
fn special_addresses_are_refused_by_what_they_are() {
    let cases = [
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "CGNAT"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "host service"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.169.253", "metadata"),
        ("169.254.170.2", "credential"),
        ("169.254.171.255", "credential"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "metadata"),
        ("192.0.0.9", "protocols"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "virtual"),
        ("198.19.255.255", "virtual"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.251", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:0:0", "this network"),
        ("::10.0.0.1", "compatible"),
        ("::8.8.8.8", "compatible"),
        ("::ffff:0:10.0.0.1", "translated"),
        ("64:ff9b::8.8.8.8", "NAT64"),
        ("64:ff9b::a9fe:a9fe", "NAT64"),
        ("64:ff9b:1::a9fe:a9fe", "local-use NAT64"),
        ("100::1", "discard"),
        ("2001::1", "Teredo"),
        ("2001:1::1", "protocols"),
        ("2001:2::1", "benchmarking"),
        ("2001:20::1", "ORCHIDv2"),
        ("2001:db8::1", "documentation"),
        ("2002:808:808::1", "6to4"),
        ("2002:a9fe:a9fe::", "6to4"),
        ("3fff::1", "documentation"),
        ("4000::1", "outside"),
        ("5f00::1", "segment routing"),
        ("fc00::1", "unique local"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd65:7865:6174::1", "unique local"),
        ("fe80::1", "link-local"),
        ("fe80::a9fe:a9fe", "metadata"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        // Routed globally to look at, private by the interface identifier.
        ("2a00:1450::5efe:10.0.0.1", "private"),
        ("2a00:1450::200:5efe:169.254.169.254", "metadata"),
    ];
    for (address, expected) in cases {
        let Err(error) = vet(&[ip(address)], 443, &[]) else {
            panic!("{address} was let through, expected {expected}");
        };
        assert!(error.to_string().contains(expected), "{address}: {error}");
    }
}

#[test]
fn ordinary_addresses_are_dialled() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450::5efe:8.8.8.8",
    ] {
        assert_eq!(
            dialled(&[address], &[]),
            [ip(address).to_string()],
            "{address}"
        );
    }
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    assert_eq!(dialled(&["::ffff:8.8.8.8"], &[]), ["8.8.8.8"]);
    assert_eq!(dialled(&["::ffff:10.1.2.3"], &["10.0.0.0/8"]), ["10.1.2.3"]);
    assert_eq!(dialled(&["::ffff:10.1.2.3"], &["::/0"]), [""; 0]);
    assert_eq!(dialled(&["8.8.8.8", "::ffff:8.8.8.8"], &[]), ["8.8.8.8"]);
}

#[test]
fn a_rule_that_names_the_range_allows_it() {
    assert_eq!(
        dialled(&["198.18.77.2"], &["198.18.77.0/24"]),
        ["198.18.77.2"]
    );
    assert_eq!(dialled(&["127.0.0.1"], &["127.0.0.0/8"]), ["127.0.0.1"]);
    assert_eq!(dialled(&["10.0.0.1"], &["0.0.0.0/0"]), ["10.0.0.1"]);
    assert_eq!(dialled(&["fd12::1"], &["fd00::/8"]), ["fd12::1"]);
    assert_eq!(dialled(&["10.0.0.1"], &["192.168.0.0/16"]), [""; 0]);
    assert_eq!(dialled(&["::1"], &["127.0.0.1/32"]), [""; 0]);
}

#[test]
fn metadata_is_never_named_in_passing() {
    for (address, wide, narrow) in [
        ("169.254.169.254", "0.0.0.0/0", "169.254.169.254/32"),
        ("169.254.169.254", "169.254.0.0/16", "169.254.169.0/24"),
        ("169.254.170.2", "169.254.170.0/23", "169.254.170.0/24"),
        ("100.100.100.200", "100.64.0.0/10", "100.100.100.200/32"),
        ("168.63.129.16", "0.0.0.0/0", "168.63.129.16/32"),
        ("fd00:ec2::254", "::/0", "fd00:ec2::/64"),
        ("fd00:ec2::254", "fd00::/8", "fd00:ec2::254/128"),
        ("::ffff:169.254.169.254", "0.0.0.0/0", "169.254.169.254/32"),
    ] {
        assert_eq!(
            dialled(&[address], &[wide]),
            [""; 0],
            "{address} under {wide}"
        );
        assert_eq!(
            dialled(&[address], &[narrow]).len(),
            1,
            "{address} under {narrow}"
        );
    }
}

#[test]
fn what_is_embedded_is_judged_too() {
    // Naming the translator's prefix names only what is ordinary behind it.
    assert_eq!(dialled(&["64:ff9b::8.8.8.8"], &["64:ff9b::/96"]).len(), 1);
    assert_eq!(dialled(&["64:ff9b::10.0.0.1"], &["64:ff9b::/96"]), [""; 0]);
    assert_eq!(
        dialled(&["64:ff9b::10.0.0.1"], &["64:ff9b::/96", "10.0.0.0/8"]).len(),
        1
    );
    assert_eq!(
        dialled(&["64:ff9b::a9fe:a9fe"], &["64:ff9b::/96", "0.0.0.0/0"]),
        [""; 0]
    );
    assert_eq!(
        dialled(&["64:ff9b::10.0.0.1"], &["64:ff9b::10.0.0.1/128"]).len(),
        1
    );
    assert_eq!(dialled(&["2002:a00:1::1"], &["2002::/16"]), [""; 0]);
    assert_eq!(dialled(&["2002:808:808::1"], &["2002::/16"]).len(), 1);
    assert_eq!(
        dialled(&["2002:a00:1::5efe:8.8.8.8"], &["2002::/16"]),
        [""; 0]
    );
    assert_eq!(
        dialled(&["2002:808:808::5efe:10.0.0.1"], &["2002::/16"]),
        [""; 0]
    );
    // Teredo: server 8.8.8.8, client 10.0.0.1 (stored inverted).
    assert_eq!(
        dialled(&["2001:0:808:808:0:0:f5ff:fffe"], &["2001::/32"]),
        [""; 0]
    );
    assert_eq!(
        dialled(&["2001:0:808:808:0:0:f7f7:f7f7"], &["2001::/32"]).len(),
        1
    );
    assert_eq!(
        dialled(&["2001:0:a00:1:0:0:f7f7:f7f7"], &["2001::/32"]),
        [""; 0]
    );
    // Local-use NAT64 with a /48, /56, /64 and /96 translator.
    for address in [
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "64:ff9b:1::a9fe:a9fe",
    ] {
        assert_eq!(
            dialled(&[address], &["64:ff9b:1::/48"]),
            [""; 0],
            "{address}"
        );
    }
    assert_eq!(
        dialled(&["64:ff9b:1::8.8.8.8"], &["64:ff9b:1::/48"]).len(),
        1
    );
}

#[test]
fn of_a_mixed_answer_the_private_ones_are_dropped() {
    assert_eq!(
        dialled(
            &[
                "8.8.8.8",
                "169.254.169.254",
                "10.0.0.1",
                "2606:4700::1111",
                "::1"
            ],
            &[]
        ),
        ["8.8.8.8", "2606:4700::1111"]
    );
    let error = vet(&[ip("10.0.0.1"), ip("10.0.0.2")], 443, &[]).unwrap_err();
    assert!(error.to_string().contains("1 more"), "{error}");
    assert_eq!(vet(&[], 443, &[]), Err(AddressForbidden::None));
}

#[test]
fn a_long_answer_is_cut() {
    let many: Vec<IpAddr> = (0..=255).map(|n| IpAddr::from([8, 8, 8, n])).collect();
    assert_eq!(vet(&many, 443, &[]).unwrap().len(), MAX_ADDRESSES);
}

#[test]
fn the_edges_of_every_registered_range_are_special() {
    for (base, prefix) in registry::rows() {
        let net = IpNet::new(base, prefix).unwrap();
        assert_eq!(net.network(), base, "{net} is not at its own base");
        for address in [net.network(), net.broadcast()] {
            assert!(classify(address).is_some(), "{address} of {net}");
        }
    }
}

/// Any address of any registered IPv4 range whose reading under a translator is not padding.
fn special_v4() -> impl Strategy<Value = Ipv4Addr> {
    let ranges: Vec<(u32, u8)> = registry::rows()
        .into_iter()
        .filter_map(|(base, prefix)| match base {
            IpAddr::V4(base) => Some((base.to_bits(), prefix)),
            IpAddr::V6(_) => None,
        })
        .collect();
    (prop::sample::select(ranges), any::<u32>()).prop_map(|((base, prefix), host)| {
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        Ipv4Addr::from_bits(base | (host & host_bits))
    })
}

proptest! {
    /// However an IPv4 address is dressed up, its special purpose is seen.
    #[test]
    fn dressing_up_never_helps(v4 in special_v4(), tail: [u16; 4]) {
        let [a, b, c, d] = v4.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        let [e, f, g, h] = tail;
        let dressed = [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, e, f, g, h, 1),
            Ipv6Addr::new(0x2001, 0, 0x808, 0x808, e, f, !high, !low),
            Ipv6Addr::new(0x2001, 0, high, low, e, f, g, h),
            Ipv6Addr::new(0x2a00, e, f, g, 0, 0x5efe, high, low),
        ];
        let wide = nets(&["::/0"]);
        for address in dressed {
            prop_assert!(vet(&[IpAddr::V6(address)], 443, &wide).is_err(), "{address}");
        }
    }

    /// What is let through with no rule is never special by itself.
    #[test]
    fn nothing_special_slips(bits: u128) {
        if let Ok(vetted) = vet(&[IpAddr::from(bits.to_be_bytes())], 1, &[]) {
            for one in vetted {
                prop_assert_eq!(classify(one.addr().ip()), None);
            }
        }
    }
}
