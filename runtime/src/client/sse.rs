//! Server-sent events, read side: turns the bytes of a response into the data of its events, wherever the packets are cut.

/// Largest event that is kept in memory; a server that sends more without a blank line is not speaking SSE.
pub const EVENT_BYTES_MAX: usize = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event grew beyond [`EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event is larger than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLarge;

/// Incremental parser of `text/event-stream` (WHATWG HTML, section 9.2.6).
///
/// It accepts LF, CR and CRLF line ends, comments, several `data` lines an event and a byte order mark, and ignores
/// the fields `event`, `id` and `retry`. Text is decoded a whole event at a time, so a multi-byte character may be
/// cut by any packet boundary.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The line being received, without its end.
    line: Vec<u8>,
    /// Data lines of the event being received, each followed by a line feed.
    data: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to the same line end.
    after_carriage_return: bool,
    /// A byte order mark may only open the first line.
    past_first_line: bool,
}

impl SseParser {
    /// Takes the next bytes and appends the data of every event that they complete.
    ///
    /// # Errors
    /// [`EventTooLarge`]; the parser is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8], events: &mut impl Extend<String>) -> Result<(), EventTooLarge> {
        for &byte in bytes {
            let after_carriage_return = std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                b'\n' if after_carriage_return => {}
                b'\n' | b'\r' => self.end_line(events),
                _ if self.line.len() + self.data.len() >= EVENT_BYTES_MAX => return Err(EventTooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// The response ended: hands out an event whose closing blank line never came, as some servers end with
    /// `data: [DONE]` and nothing behind it.
    pub fn finish(&mut self, events: &mut impl Extend<String>) {
        if !self.line.is_empty() {
            self.end_line(events);
        }
        self.end_event(events);
    }

    fn end_line(&mut self, events: &mut impl Extend<String>) {
        if !std::mem::replace(&mut self.past_first_line, true) && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.is_empty() {
            self.end_event(events);
            return;
        }
        let colon = self.line.iter().position(|&byte| byte == b':');
        let (field, value) = match colon {
            Some(colon) => (&self.line[..colon], &self.line[colon + 1..]),
            None => (self.line.as_slice(), &[][..]),
        };
        if field == b"data" {
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        self.line.clear();
    }

    fn end_event(&mut self, events: &mut impl Extend<String>) {
        if self.data.pop().is_some() {
            events.extend([String::from_utf8_lossy(&self.data).into_owned()]);
            self.data.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events).expect("small events");
        }
        parser.finish(&mut events);
        events
    }

    #[test]
    fn data_lines_of_one_event_are_joined_and_other_fields_ignored() {
        let stream = b": comment\nevent: x\nid: 3\ndata: one\ndata:two\ndata\nretry: 5\n\n\n\ndata: [DONE]\n\n";
        assert_eq!(parse(&[stream]), ["one\ntwo\n", "[DONE]"]);
    }

    #[test]
    fn only_one_leading_space_is_removed() {
        assert_eq!(parse(&[b"data:  a \n\n"]), [" a "]);
    }

    #[test]
    fn an_event_without_its_blank_line_is_delivered_at_the_end() {
        assert_eq!(parse(&[b"data: a\n\ndata: [DONE]"]), ["a", "[DONE]"]);
        assert_eq!(parse(&[b"data: a\n\n: bye"]), ["a"]);
    }

    #[test]
    fn an_empty_data_line_is_an_event_and_no_data_is_none() {
        assert_eq!(parse(&[b"data:\n\n"]), [""]);
        assert_eq!(parse(&[b"event: ping\n\n"]), [""; 0]);
    }

    #[test]
    fn a_byte_order_mark_opens_only_the_stream() {
        assert_eq!(parse(&[b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"]), ["a"]);
    }

    #[test]
    fn every_line_end_and_every_split_gives_the_same_events() {
        let text = "data: {\"text\":\"h\u{e9}llo \u{1f600}\"}\n\n: keep-alive\n\ndata: a\ndata: \u{4e16}\u{754c}\n\ndata: [DONE]\n\n";
        let expected = ["{\"text\":\"h\u{e9}llo \u{1f600}\"}", "a\n\u{4e16}\u{754c}", "[DONE]"];
        for line_end in ["\n", "\r\n", "\r"] {
            let bytes = text.replace('\n', line_end).into_bytes();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(parse(&single), expected, "line end {line_end:?}, byte by byte");
            for cut in 0..=bytes.len() {
                for second in [cut, (cut + 1).min(bytes.len()), bytes.len()] {
                    let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                    assert_eq!(parse(&pieces), expected, "line end {line_end:?}, cut at {cut} and {second}");
                }
            }
        }
    }

    #[test]
    fn invalid_utf8_is_replaced_instead_of_ending_the_stream() {
        assert_eq!(parse(&[b"data: a\xffb\n\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let mut events: Vec<String> = Vec::new();
        let line = [b"data: ", vec![b'x'; 1 << 16].as_slice(), b"\n"].concat();
        let result = (0..=EVENT_BYTES_MAX / line.len() + 1).try_for_each(|_| parser.push(&line, &mut events));
        assert_eq!(result, Err(EventTooLarge));
        assert!(events.is_empty());
    }
}
