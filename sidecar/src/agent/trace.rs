//! The W3C trace context of a request, so that its record is found from the agent's own trace.

use http::HeaderMap;

/// What `traceparent` says (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The agent's span.
    pub parent_id: [u8; 8],
}

// === impl TraceContext ===

impl TraceContext {
    /// From the fields of a request; none where the field is absent or not well-formed.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("traceparent")?.as_bytes();
        let ([a, b, b'-', rest @ ..], 55) = (value, value.len()) else {
            return None;
        };
        hex(&[*a, *b]).filter(|version: &[u8; 1]| version[0] != 0xff)?;
        let trace_id = hex(&rest[..32])?;
        let parent_id = hex(&rest[33..49])?;
        let separated = rest[32] == b'-' && rest[49] == b'-';
        let zero = trace_id == [0; 16] || parent_id == [0; 8];
        (separated && !zero).then_some(Self {
            trace_id,
            parent_id,
        })
    }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_well_formed_parent_counts() {
        let of = |value: &str| {
            let headers =
                HeaderMap::from_iter([("traceparent".parse().unwrap(), value.parse().unwrap())]);
            TraceContext::of(&headers)
        };
        let good = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(good.trace_id[0], 0x0a);
        assert_eq!(good.parent_id[7], 0x31);
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
