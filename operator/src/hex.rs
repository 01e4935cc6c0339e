//! Hexadecimal, as keys, seals and numbers used once are written.

/// Longer is nothing that is written so here: a code has 64 digits.
const MAX_DIGITS: usize = 128;

/// In lower case.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| DIGITS[usize::from(digit)])
        .collect()
}

/// `None` if it is none, or has more than `MAX_DIGITS`.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !text.len().is_multiple_of(2) || text.len() > MAX_DIGITS {
        return None;
    }
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let bytes: Vec<u8> = (0..64).map(|n| n * 4).collect();
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
        assert_eq!(encode(&[0, 255]), "00ff");
        for none in ["0", "0g", "+1", "é0", &"00".repeat(65)] {
            assert_eq!(decode(none), None, "{none}");
        }
    }
}
