//! Tables of the report, the same on the page and in Markdown.

use std::fmt::Write as _;

use serde::Serialize;

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Whether it is the best of its column.
    pub is_best: bool,
    /// Whether it is set as a figure: right-aligned, all digits of one width.
    pub is_number: bool,
}

impl TableCell {
    /// A field of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_best: false, is_number: false }
    }

    /// A field with a figure.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_best: false, is_number: true }
    }
}

/// The table in Markdown, with its title as a heading.
pub fn markdown(table: &Table) -> String {
    let mut out = String::new();
    let escape = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let line = |out: &mut String, fields: &mut dyn Iterator<Item = String>| {
        let fields: Vec<String> = fields.collect();
        let _ = writeln!(out, "| {} |", fields.join(" | "));
    };
    let _ = writeln!(out, "### {}\n", table.title);
    line(&mut out, &mut table.head.iter().map(|h| escape(h)));
    let is_number = |column: usize| table.rows.iter().any(|r| r.get(column).is_some_and(|c| c.is_number));
    let rule = |column| if is_number(column) { "---:" } else { "---" };
    line(&mut out, &mut (0..table.head.len()).map(|c| rule(c).to_owned()));
    for row in &table.rows {
        let field = |cell: &TableCell| {
            let text = escape(&cell.text);
            if cell.is_best { format!("**{text}**") } else { text }
        };
        line(&mut out, &mut row.iter().map(field));
    }
    if !table.note.is_empty() {
        let _ = writeln!(out, "\n{}", table.note);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_field_is_bold_and_bars_are_escaped() {
        let best = TableCell { is_best: true, ..TableCell::number("61.0") };
        let table = Table {
            title: "Accuracy".to_owned(),
            note: "in percent".to_owned(),
            head: vec!["method".to_owned(), "1".to_owned()],
            rows: vec![vec![TableCell::text("a|b"), best]],
        };
        let expected =
            "### Accuracy\n\n| method | 1 |\n| --- | ---: |\n| a\\|b | **61.0** |\n\nin percent\n\n";
        assert_eq!(markdown(&table), expected);
    }
}
