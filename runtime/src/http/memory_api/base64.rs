//! Base64 (RFC 4648, section 4), for documents that are no text and for embeddings in OpenAI's compact form.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING: u8 = b'=';

/// The text of some bytes, with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (number >> (18 - 6 * place)) & 63;
            let is_given = place <= group.len();
            text.push(char::from(if is_given { ALPHABET[digit as usize] } else { PADDING }));
        }
    }
    text
}

/// The bytes of a text; `None` when it is not exactly what [`encode`] makes, line breaks apart.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let num_groups = digits.len() / 4;
    for (index, group) in digits.chunks(4).enumerate() {
        let num_padding = group.iter().rev().take_while(|digit| **digit == PADDING).count();
        if num_padding > 2 || (num_padding > 0 && index + 1 < num_groups) {
            return None;
        }
        let mut number = 0u32;
        for digit in &group[..4 - num_padding] {
            number = number << 6 | value_of(*digit)?;
        }
        number <<= 6 * num_padding as u32;
        let given = &number.to_be_bytes()[1..4];
        let (kept, rest) = given.split_at(3 - num_padding);
        // Bits that no byte takes must not be set: a text has one spelling.
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn value_of(digit: u8) -> Option<u32> {
    Some(
        match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold_in_both_directions() {
        let examples =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in examples {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["Z", "Zg=", "Zg", "Zh==", "Zm9=", "====", "Z===", "Zg==Zg==", "Zm9v!A==", "Zm-v", "ä"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("Zm9v\r\nZg==").as_deref(), Some(&b"foof"[..]));
    }
}
