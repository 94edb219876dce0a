//! The progress line of a model download: one line on the terminal, rewritten in place, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use models::hub::DownloadProgress;

/// How often the line is rewritten.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
const BAR_WIDTH: usize = 24;

/// Shows one file after the other. Where standard error is no terminal only beginnings and ends are printed.
#[derive(Default)]
pub(super) struct DownloadLine {
    file: String,
    num_bytes: u64,
    num_done: u64,
    drawn_at: Option<Instant>,
}

impl DownloadProgress for DownloadLine {
    fn begin(&mut self, file: &str, num_bytes: u64) {
        *self = Self { file: file.to_owned(), num_bytes, num_done: 0, drawn_at: None };
        if std::io::stderr().is_terminal() {
            self.draw();
        } else {
            eprintln!("Downloading {file}, {:.1} MB", megabytes(num_bytes));
        }
    }

    fn advance(&mut self, num_bytes: u64) {
        self.num_done += num_bytes;
        let due = self.drawn_at.is_none_or(|drawn_at| drawn_at.elapsed() >= REDRAW_INTERVAL);
        if due && std::io::stderr().is_terminal() {
            self.draw();
        }
    }

    fn finish(&mut self) {
        if std::io::stderr().is_terminal() {
            self.draw();
            eprintln!();
        } else {
            eprintln!("Downloaded {}", self.file);
        }
    }
}

impl DownloadLine {
    fn draw(&mut self) {
        self.drawn_at = Some(Instant::now());
        let line = bar_line(&self.file, self.num_done, self.num_bytes);
        let mut stderr = std::io::stderr();
        // A terminal that is gone is no reason to stop a download.
        let _ = write!(stderr, "\r{line}").and_then(|()| stderr.flush());
    }
}

fn bar_line(file: &str, num_done: u64, num_bytes: u64) -> String {
    let share = if num_bytes == 0 { 1.0 } else { (num_done as f64 / num_bytes as f64).min(1.0) };
    let filled = (share * BAR_WIDTH as f64) as usize;
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(BAR_WIDTH - filled));
    format!("{file} [{bar}] {:.1} of {:.1} MB", megabytes(num_done), megabytes(num_bytes))
}

fn megabytes(num_bytes: u64) -> f64 {
    num_bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_and_never_overflows() {
        assert_eq!(bar_line("a", 0, 2_000_000), format!("a [{}] 0.0 of 2.0 MB", "-".repeat(24)));
        assert_eq!(
            bar_line("a", 1_000_000, 2_000_000),
            format!("a [{}{}] 1.0 of 2.0 MB", "#".repeat(12), "-".repeat(12))
        );
        assert!(bar_line("a", 9, 3).contains(&"#".repeat(24)));
        assert!(bar_line("empty", 0, 0).contains(&"#".repeat(24)));
    }
}
