//! One question read, one reply written.
//!
//! A question is one query of one name in the Internet class, with at most EDNS beside it; whatever
//! else a message may hold is refused before it is parsed. The name goes back letter for letter as
//! it came (some resolvers check its case).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use exeat_policy::Host;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Fixed by RFC 1035.
const HEADER: usize = 12;

/// A question with a full name and padding is below 600 bytes; nobody honest sends more.
pub(super) const MAX_QUESTION: usize = 4096;

/// What passes every link unfragmented (DNS flag day 2020). Our replies are below 512 anyway.
const EDNS_PAYLOAD: u16 = 1232;

/// A policy changes; who asked before soon asks again. Virtual addresses themselves never move.
const TTL: u32 = 10;

/// That a name does not exist may be changed by the next policy.
const NEGATIVE_TTL: u32 = 3;

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Question {
    id: u16,
    recursion_desired: bool,
    query: Query,
    edns: Option<bool>,
    host: Option<Host>,
}

/// What kind of question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A.
    V4,
    /// AAAA.
    V6,
    /// PTR of an address.
    Reverse,
    /// Anything else.
    Other,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name is at this address.
    V4(Ipv4Addr),
    /// The name is at this address.
    V6(Ipv6Addr),
    /// The name exists, and has nothing of this kind.
    NoData,
    /// There is no such name.
    NoSuchName,
    /// Not now.
    Refused,
}

/// Why a message can't be answered.
#[derive(Debug)]
pub(super) enum Malformed {
    /// No DNS, or a reply: answering could start a conversation with another server.
    NotAQuestion,
    /// DNS of a kind that is not spoken here: what tells so, if it can be told.
    Told(Option<Vec<u8>>),
}

// === impl Question ===

impl Question {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(Malformed::Told(None));
        };
        if header[2] & 0x80 != 0 {
            return Err(Malformed::NotAQuestion);
        }
        let id = u16::from_be_bytes([header[0], header[1]]);
        let op_code = OpCode::from_u8((header[2] >> 3) & 0x0f);
        let told = |code| {
            let reply = Message::error_msg(id, op_code, code);
            Malformed::Told(reply.to_vec().ok())
        };
        if bytes.len() > MAX_QUESTION {
            return Err(told(ResponseCode::FormErr));
        }
        if op_code != OpCode::Query {
            return Err(told(ResponseCode::NotImp));
        }
        // Truncated, several questions, answers in a question: nothing that resolvers send. Counted
        // here, because the parser makes room for as many as the header claims.
        let truncated = header[2] & 0x02 != 0;
        let counts = [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        if truncated || !matches!(counts, [1, 0, 0, 0 | 1]) {
            return Err(told(ResponseCode::FormErr));
        }
        let mut decoder = BinDecoder::new(bytes);
        let parsed = Message::read(&mut decoder)
            .ok()
            .filter(|_| decoder.is_empty());
        let Some(mut message) = parsed else {
            return Err(told(ResponseCode::FormErr));
        };
        let Some(query) = message.queries.pop() else {
            return Err(told(ResponseCode::FormErr));
        };
        if !message.additionals.is_empty() || message.signature.is_some() {
            return Err(told(ResponseCode::FormErr));
        }
        if query.query_class() != DNSClass::IN {
            return Err(told(ResponseCode::Refused));
        }
        Ok(Self {
            id,
            recursion_desired: message.metadata.recursion_desired,
            edns: message.edns.map(|edns| edns.version() == 0),
            host: host(query.name()),
            query,
        })
    }

    /// The name, if it is one that a host can have.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    pub(super) fn kind(&self) -> Kind {
        match self.query.query_type() {
            RecordType::A => Kind::V4,
            RecordType::AAAA => Kind::V6,
            RecordType::PTR => Kind::Reverse,
            _ => Kind::Other,
        }
    }

    /// The name for a record: the canonical one, or what was asked for with odd bytes escaped.
    pub(super) fn shown(&self) -> String {
        if let Some(host) = &self.host {
            return host.to_string();
        }
        let mut shown = String::new();
        for label in self.query.name() {
            if !shown.is_empty() {
                shown.push('.');
            }
            for byte in label {
                if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\') {
                    shown.push(char::from(*byte));
                } else {
                    // Writing to a string does not fail.
                    let _written = write!(shown, "\\{byte:03}");
                }
            }
        }
        if shown.is_empty() {
            shown.push('.');
        }
        shown
    }

    /// The type for a record.
    pub(super) fn kind_shown(&self) -> String {
        self.query.query_type().to_string()
    }

    /// What is answered if the name has these addresses.
    pub(super) fn addresses(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Answer {
        match self.kind() {
            Kind::V4 => Answer::V4(v4),
            Kind::V6 => Answer::V6(v6),
            Kind::Reverse | Kind::Other => Answer::NoData,
        }
    }

    /// The bytes of the reply.
    pub(super) fn reply(&self, answer: &Answer) -> Option<Vec<u8>> {
        let mut reply = Message::new(self.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = self.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(self.query.clone());
        if let Some(known) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_PAYLOAD).set_version(0);
            reply.set_edns(edns);
            if !known {
                reply.metadata.response_code = ResponseCode::BADVERS;
                return reply.to_vec().ok();
            }
        }
        let name = || self.query.name().clone();
        match answer {
            Answer::V4(v4) => {
                reply.add_answer(Record::from_rdata(name(), TTL, RData::A(A(*v4))));
            }
            Answer::V6(v6) => {
                reply.add_answer(Record::from_rdata(name(), TTL, RData::AAAA(AAAA(*v6))));
            }
            Answer::NoData => {
                reply.add_authority(start_of_authority());
            }
            Answer::NoSuchName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(start_of_authority());
            }
            Answer::Refused => reply.metadata.response_code = ResponseCode::Refused,
        }
        reply.to_vec().ok()
    }
}

/// Says for how long "there is none" is good.
fn start_of_authority() -> Record {
    let soa = SOA::new(Name::root(), Name::root(), 1, 60, 60, 60, NEGATIVE_TTL);
    Record::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(soa))
}

/// The host of a name on the wire. Labels may hold any byte there, dots too: only plain ones pass,
/// and nothing is decoded, so that no two names on the wire are one host but by their case.
fn host(name: &Name) -> Option<Host> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || !label.iter().all(plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    Host::parse(&text).ok()
}
