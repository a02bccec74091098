//! Tables of the report: one structure, written as Markdown, LaTeX, CSV and HTML.
//!
//! Texts may hold Markdown's code spans; every form writes them in its own way.

mod csv;
mod latex;
mod markdown;

pub use csv::csv;
pub use latex::latex;
pub use markdown::markdown;

use serde::Serialize;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// The lines, each as long as `head`.
    pub rows: Vec<Vec<TableCell>>,
}

/// One field of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableCell {
    /// The text.
    pub text: String,
    /// Whether it is set in bold; the note says what for.
    pub is_bold: bool,
    /// Whether it is set as a figure: right-aligned, all digits of one width.
    pub is_number: bool,
    /// Anchor on the page where the field is explained, for the forms that have links.
    pub anchor: Option<String>,
}

impl TableCell {
    /// A field of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_bold: false, is_number: false, anchor: None }
    }

    /// A field with a figure.
    pub fn number(text: impl Into<String>) -> Self {
        Self { is_number: true, ..Self::text(text) }
    }

    /// The field in bold where `is_bold` holds.
    pub fn bold(self, is_bold: bool) -> Self {
        Self { is_bold, ..self }
    }
}

impl Table {
    /// A table without lines.
    pub fn new(title: impl Into<String>, note: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.into(), note: note.into(), head, rows: vec![] }
    }

    /// Name of the table's files, from its title.
    pub fn slug(&self) -> String {
        pipeline_spec::ids::slug_of(&self.title)
    }

    /// Whether the column holds figures.
    fn is_number(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.is_number))
    }
}

#[cfg(test)]
fn example() -> Table {
    let mut table = Table::new("Accuracy on `test`", "100% of 5 images, p_Holm", &["method", "1 shot"]);
    let best = TableCell::number("61.0 ± 1.2 (3)").bold(true);
    table.rows.push(vec![TableCell::text("a|b, c"), best]);
    table.rows.push(vec![TableCell::text("say \"d\""), TableCell::number("–")]);
    table
}
