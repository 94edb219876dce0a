//! Plain-text tables for the terminal: columns as wide as their widest cell, numbers to the right.

use std::fmt;

const COLUMN_GAP: &str = "  ";

/// On which side a column is flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A table with a heading row.
#[derive(Debug, Clone)]
pub struct Table {
    heading: Vec<String>,
    /// Of the columns after the first, which is text.
    side: Side,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column names. The first column is text (left), the others are figures (right).
    pub fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(|&name| name.to_owned()).collect(), side: Side::Right, rows: Vec::new() }
    }

    /// The same where all columns are text.
    pub fn of_text(heading: &[&str]) -> Self {
        Self { side: Side::Left, ..Self::new(heading) }
    }

    /// Appends a row.
    ///
    /// # Panics
    /// When it has another number of cells than the heading.
    pub fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.heading.len(), "a row has one cell for each column");
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let width_of = |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heading.len()).map(width_of).collect();
        for (index, row) in lines().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match (column, self.side) {
                (0, _) | (_, Side::Left) => format!("{cell:<width$}"),
                (_, Side::Right) => format!("{cell:>width$}"),
            });
            writeln!(formatter, "{}", cells.collect::<Vec<_>>().join(COLUMN_GAP).trim_end())?;
            if index == 0 {
                let rules = widths.iter().map(|&width| "-".repeat(width));
                writeln!(formatter, "{}", rules.collect::<Vec<_>>().join(COLUMN_GAP))?;
            }
        }
        Ok(())
    }
}

/// A text on one line, cut to so many characters.
pub fn one_line(text: &str, num_chars_max: usize) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = words.char_indices().nth(num_chars_max) {
        words.truncate(cut);
        words.push('\u{2026}');
    }
    words
}

/// A figure with about three significant digits, as a person would write it; `-` for a missing one.
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ms", "mean", "p99"]);
        table.push(vec!["time to first token".into(), "12.5".into(), "1234".into()]);
        table.push(vec!["\u{e9}".into(), "-".into(), "1".into()]);
        let expected = "\
ms                   mean   p99
-------------------  ----  ----
time to first token  12.5  1234
\u{e9}                       -     1
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn text_is_flush_left_and_cut_to_one_line() {
        let mut table = Table::of_text(&["id", "text"]);
        table.push(vec!["1".into(), one_line("a\n\tlong  \u{e9}text", 8)]);
        assert_eq!(table.to_string(), "id  text\n--  ---------\n1   a long \u{e9}\u{2026}\n");
        assert_eq!(one_line(" short ", 5), "short");
    }

    #[test]
    #[should_panic(expected = "one cell for each column")]
    fn a_row_with_a_missing_cell_is_a_bug() {
        Table::new(&["a", "b"]).push(vec!["1".into()]);
    }

    #[test]
    fn figures_keep_three_digits() {
        let written = [1234.5, 99.95, 12.34, 1.234, 0.1234, 0.0].map(|value| figure(Some(value)));
        assert_eq!(written, ["1234", "100.0", "12.3", "1.23", "0.123", "0.000"]);
        assert_eq!(figure(None), "-");
    }
}
