//! One line on the terminal that says how far a long measurement is; silent when nobody looks.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(200);

/// Progress over a known number of steps, written to stderr when that is a terminal.
pub struct Progress {
    /// `None`: stderr is no terminal.
    line: Option<Mutex<Line>>,
}

struct Line {
    what: &'static str,
    done: usize,
    total: usize,
    written: Instant,
}

impl Progress {
    /// Nothing of `total` done yet; `what` names the steps in the plural.
    pub fn new(what: &'static str, total: usize) -> Self {
        let line = Line { what, done: 0, total, written: Instant::now() };
        Self { line: std::io::stderr().is_terminal().then(|| Mutex::new(line)) }
    }

    /// One more step is done.
    pub fn advance(&self) {
        let Some(line) = &self.line else { return };
        let mut line = line.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        line.done += 1;
        if line.written.elapsed() >= INTERVAL {
            line.written = Instant::now();
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(std::io::stderr(), "\r{} of {} {}", line.done, line.total, line.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.line.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
