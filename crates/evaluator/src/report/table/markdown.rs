//! Tables as Markdown.

use std::fmt::Write as _;

use super::{Table, TableCell};

/// The table, with its title as a heading and its note below.
pub fn markdown(table: &Table) -> String {
    let mut out = format!("### {}\n\n", table.title);
    let escape = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    line(&mut out, table.head.iter().map(|head| escape(head)));
    let rule = |column| if table.is_number(column) { "---:" } else { "---" };
    line(&mut out, (0..table.head.len()).map(|column| rule(column).to_owned()));
    for row in &table.rows {
        let field = |cell: &TableCell| {
            let text = escape(&cell.text);
            if cell.is_bold { format!("**{text}**") } else { text }
        };
        line(&mut out, row.iter().map(field));
    }
    if !table.note.is_empty() {
        let _ = writeln!(out, "\n{}", table.note);
    }
    out.push('\n');
    out
}

fn line(out: &mut String, fields: impl Iterator<Item = String>) {
    let fields: Vec<String> = fields.collect();
    let _ = writeln!(out, "| {} |", fields.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_best_field_is_bold_and_bars_are_escaped() {
        let expected = "### Accuracy on `test`\n\n| method | 1 shot |\n| --- | ---: |\n\
                        | a\\|b, c | **61.0 ± 1.2 (3)** |\n| say \"d\" | – |\n\n100% of 5 images, p_Holm\n\n";
        assert_eq!(markdown(&example()), expected);
    }
}
