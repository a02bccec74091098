//! Tables as LaTeX, with the rules of `booktabs`.

use std::fmt::Write as _;

use super::{Table, TableCell};

/// The table as a `table` environment; the document needs `\usepackage{booktabs}`.
pub fn latex(table: &Table) -> String {
    let columns: String = (0..table.head.len()).map(|c| if table.is_number(c) { 'r' } else { 'l' }).collect();
    let mut out = String::from("\\begin{table}\n\\centering\n");
    let note = if table.note.is_empty() { String::new() } else { format!(". {}", table.note) };
    let caption = escape(&format!("{}{note}", table.title));
    let _ = writeln!(out, "\\caption{{{caption}}}\n\\label{{tab:{}}}", table.slug());
    let _ = writeln!(out, "\\begin{{tabular}}{{{columns}}}\n\\toprule");
    line(&mut out, table.head.iter().map(|head| escape(head)));
    out.push_str("\\midrule\n");
    for row in &table.rows {
        let field = |cell: &TableCell| {
            let text = escape(&cell.text);
            if cell.is_bold { format!("\\textbf{{{text}}}") } else { text }
        };
        line(&mut out, row.iter().map(field));
    }
    out.push_str("\\bottomrule\n\\end{tabular}\n\\end{table}\n");
    out
}

fn line(out: &mut String, fields: impl Iterator<Item = String>) {
    let fields: Vec<String> = fields.collect();
    let _ = writeln!(out, "{} \\\\", fields.join(" & "));
}

/// Text in which nothing is a command of LaTeX; code spans are `\texttt`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_code = false;
    for c in text.chars() {
        match c {
            '`' => {
                out.push_str(if is_code { "}" } else { "\\texttt{" });
                is_code = !is_code;
            }
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '±' => out.push_str("$\\pm$"),
            '−' => out.push_str("$-$"),
            '–' => out.push_str("--"),
            '†' => out.push_str("\\dag{}"),
            'λ' => out.push_str("$\\lambda$"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    if is_code {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_table_has_the_rules_of_booktabs_and_no_open_command() {
        let expected = "\\begin{table}\n\\centering\n\
            \\caption{Accuracy on \\texttt{test}. 100\\% of 5 images, p\\_Holm}\n\\label{tab:accuracy-on-test}\n\
            \\begin{tabular}{lr}\n\\toprule\nmethod & 1 shot \\\\\n\\midrule\n\
            a|b, c & \\textbf{61.0 $\\pm$ 1.2 (3)} \\\\\nsay \"d\" & -- \\\\\n\
            \\bottomrule\n\\end{tabular}\n\\end{table}\n";
        assert_eq!(latex(&example()), expected);
    }

    #[test]
    fn what_latex_reads_as_a_command_is_escaped() {
        assert_eq!(
            escape("a_b\\c{d}~e^f#$&"),
            "a\\_b\\textbackslash{}c\\{d\\}\\textasciitilde{}e\\textasciicircum{}f\\#\\$\\&"
        );
        assert_eq!(escape("an `open tick"), "an \\texttt{open tick}");
        assert_eq!(escape("p < 0.05 †"), "p $<$ 0.05 \\dag{}");
    }
}
