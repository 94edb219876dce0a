//! The block of memories in a prompt: a heading and one line each, as a template says.

use std::str::FromStr;

use memory::item::Item;

/// Longest template.
pub const TEMPLATE_BYTES_MAX: usize = 4 << 10;
/// Stands for the memory in a template.
const MEMORY: &str = "{memory}";
/// Stands for the day on which it was written down, in UTC.
const DATE: &str = "{date}";
/// Bytes of a day in RFC 3339.
const DATE_LEN: usize = "2026-03-01".len();

/// Why a text is no template.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// It does not say where the memories go, or says it twice.
    #[error(
        "a memory template has one line with {MEMORY} in it, which is repeated for each memory; this one has {num_lines}"
    )]
    NumMemoryLines {
        /// Lines with a place for a memory.
        num_lines: usize,
    },
    /// It is too long.
    #[error("a memory template has at most {TEMPLATE_BYTES_MAX} bytes; this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// How memories are written into a prompt: lines before them, the line of a memory, lines after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTemplate {
    head: Vec<String>,
    line: String,
    tail: Vec<String>,
}

impl Default for MemoryTemplate {
    /// As the bundled model was trained.
    fn default() -> Self {
        Self { head: vec!["# Memories".to_owned()], line: format!("- {MEMORY}"), tail: Vec::new() }
    }
}

impl FromStr for MemoryTemplate {
    type Err = TemplateError;

    /// Reads a template such as `# Memories\n- {memory}`. Blank lines around it do not count.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len() });
        }
        let lines: Vec<&str> = text.trim_matches(['\n', '\r']).lines().collect();
        let places: Vec<usize> =
            lines.iter().enumerate().filter(|(_, line)| line.contains(MEMORY)).map(|(place, _)| place).collect();
        let [place] = places[..] else { return Err(TemplateError::NumMemoryLines { num_lines: places.len() }) };
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Ok(Self { head: owned(&lines[..place]), line: lines[place].to_owned(), tail: owned(&lines[place + 1..]) })
    }
}

impl MemoryTemplate {
    /// The line of one memory, whose text must be one line. What the text spells is never read as a part of the template.
    pub fn line(&self, text: &str, item: &Item) -> String {
        let moment = item.created_at.to_string();
        let date = moment.get(..DATE_LEN).unwrap_or(&moment);
        let mut line = String::with_capacity(self.line.len() + text.len());
        for (index, around) in self.line.split(MEMORY).enumerate() {
            if index > 0 {
                line.push_str(text);
            }
            line.push_str(&around.replace(DATE, date));
        }
        line
    }

    /// The block of these lines, without a line break at its end.
    pub fn block<'a>(&'a self, lines: impl IntoIterator<Item = &'a str>) -> String {
        let head = self.head.iter().map(String::as_str);
        let tail = self.tail.iter().map(String::as_str);
        head.chain(lines).chain(tail).collect::<Vec<_>>().join("\n")
    }
}
