//! Where a benchmark's result goes: tables for people, a JSON file for programs.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// Prints `text` to stdout and writes `json` to the file. With `-` the JSON takes stdout and the text stderr.
///
/// # Errors
/// A file that cannot be written, a closed stdout.
pub fn deliver(text: &str, json: &Value, file: Option<&Path>) -> anyhow::Result<()> {
    let json = format!("{json:#}\n");
    match file {
        None => std::io::stdout().write_all(text.as_bytes())?,
        Some(file) if file == Path::new("-") => {
            std::io::stderr().write_all(text.as_bytes())?;
            std::io::stdout().write_all(json.as_bytes())?;
        }
        Some(file) => {
            std::io::stdout().write_all(text.as_bytes())?;
            std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}
