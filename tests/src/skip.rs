//! A test that cannot run says so: one line that the test command collects and counts.

use std::io::Write;

/// Prints `SKIPPED: …` past the test harness's capture, so that the line is seen although the test passes.
pub fn report(what: &str, reason: &str) {
    // A closed stderr is no reason for a test to fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {reason}");
}
