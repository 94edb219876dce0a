//! What a line of a terminal chat means, and the thread that reads the lines.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

/// Longest line: more than any context holds.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The commands, as `/help` shows them.
pub(super) const HELP: &str = "\
/memory TEXT   remember TEXT: it is shown to the model in every turn; without TEXT: list what is remembered
/memories      list what the cube of --cube holds
/forget TEXT   erase the memory with this id, or the one that says this, from the cube, after asking
/why           tell which memories the last answer was given, and why those
/system TEXT   replace the instructions; without TEXT: remove them
/reset         forget the conversation; instructions and memories stay
/help          this list
/exit          leave (also Ctrl-D)
//TEXT         say a TEXT that begins with a slash
Ctrl-C stops an answer; pressed twice at the prompt it leaves.";

/// What the user wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// Nothing: an empty line.
    Nothing,
    /// A message for the model.
    Say(&'a str),
    /// `/memory TEXT`
    Remember(&'a str),
    /// `/memory`
    ListMemories,
    /// `/memories`
    ListCube,
    /// `/forget TEXT`
    Forget(&'a str),
    /// `/why`
    Why,
    /// `/system TEXT`
    System(&'a str),
    /// `/reset`
    Reset,
    /// `/help`
    Help,
    /// `/exit`
    Exit,
    /// Any other word behind a slash.
    Unknown(&'a str),
}

impl<'a> Input<'a> {
    /// Reads one line.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::Say(line) };
        if command.starts_with('/') {
            return Self::Say(command);
        }
        let (name, text) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, text.trim()) {
            ("memory", "") => Self::ListMemories,
            ("memory", text) => Self::Remember(text),
            ("memories", "") => Self::ListCube,
            ("forget", text) if !text.is_empty() => Self::Forget(text),
            ("why", "") => Self::Why,
            ("system", text) => Self::System(text),
            ("reset", "") => Self::Reset,
            ("help", "") => Self::Help,
            ("exit" | "quit", "") => Self::Exit,
            _ => Self::Unknown(line),
        }
    }
}

/// Why a line could not be taken; the next one may be fine, except after `Io`.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Not UTF-8.
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    /// Too long.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The input is broken.
    #[error("cannot read the input: {0}")]
    Io(#[from] std::io::Error),
}

/// Starts reading lines from stdin on a thread of its own: a read there cannot be interrupted, but the process can
/// end while it waits. The channel closes at the end of the input.
///
/// # Errors
/// No thread.
pub(super) fn read_stdin() -> std::io::Result<mpsc::Receiver<Result<String, LineError>>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new().name("memos-stdin".into()).spawn(move || {
        let mut input = std::io::stdin().lock();
        while let Some(line) = read_line(&mut input) {
            let broken = matches!(line, Err(LineError::Io(_)));
            if sender.blocking_send(line).is_err() || broken {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// The next line without its end; `None` at the end of the input. A line that is too long is skipped whole.
fn read_line(input: &mut impl BufRead) -> Option<Result<String, LineError>> {
    let mut line = Vec::new();
    match input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
        Err(error) => return Some(Err(error.into())),
        Ok(0) => return None,
        Ok(_len) => {}
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Some(match input.skip_until(b'\n') {
            Ok(_len) => Err(LineError::TooLong),
            Err(error) => Err(error.into()),
        });
    }
    Some(String::from_utf8(line).map_err(|_error| LineError::NotUtf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        let cases = [
            ("", Input::Nothing),
            ("  \t", Input::Nothing),
            (" Hello there ", Input::Say("Hello there")),
            ("/help", Input::Help),
            ("/reset", Input::Reset),
            ("/exit ", Input::Exit),
            ("/quit", Input::Exit),
            ("/memory", Input::ListMemories),
            ("/memory  Anna likes tea ", Input::Remember("Anna likes tea")),
            ("/system Be brief", Input::System("Be brief")),
            ("/system", Input::System("")),
            ("/memories", Input::ListCube),
            ("/forget  teal ", Input::Forget("teal")),
            ("/forget", Input::Unknown("/forget")),
            ("/why", Input::Why),
            ("//etc/hosts is a file", Input::Say("/etc/hosts is a file")),
            ("/memoryless", Input::Unknown("/memoryless")),
            ("/reset now", Input::Unknown("/reset now")),
            ("/", Input::Unknown("/")),
        ];
        for (line, expected) in cases {
            assert_eq!(Input::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn every_command_is_in_the_help() {
        for command in ["/memory", "/memories", "/forget x", "/why", "/system", "/reset", "/help", "/exit"] {
            let name = command.split(' ').next().expect("a name");
            assert!(HELP.contains(name), "{command}");
            assert!(!matches!(Input::parse(command), Input::Unknown(_)), "{command}");
        }
    }

    #[test]
    fn a_bad_line_does_not_end_the_input() {
        let mut bytes = b"one\r\n\xff\n".to_vec();
        bytes.extend(vec![b'x'; LINE_BYTES_MAX + 5]);
        bytes.extend(b"\n");
        bytes.extend(vec![b'y'; LINE_BYTES_MAX]);
        bytes.extend(b"\nlast");
        let mut input = bytes.as_slice();
        let mut next = || read_line(&mut input);
        assert_eq!(next().expect("a line").expect("valid"), "one\r");
        assert!(matches!(next(), Some(Err(LineError::NotUtf8))));
        assert!(matches!(next(), Some(Err(LineError::TooLong))));
        assert_eq!(next().expect("a line").expect("just fits").len(), LINE_BYTES_MAX);
        assert_eq!(next().expect("a line").expect("valid"), "last");
        assert!(next().is_none());
    }
}
