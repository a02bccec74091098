//! Tables as CSV (RFC 4180): the head and the fields, without title and note.

use super::Table;

/// The table; fields are as they are shown.
pub fn csv(table: &Table) -> String {
    let mut out = String::new();
    line(&mut out, table.head.iter().map(String::as_str));
    for row in &table.rows {
        line(&mut out, row.iter().map(|cell| cell.text.as_str()));
    }
    out
}

fn line<'a>(out: &mut String, fields: impl Iterator<Item = &'a str>) {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            out.push(',');
        }
        if field.contains(['"', ',', '\n', '\r']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(field);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        let expected = "method,1 shot\n\"a|b, c\",61.0 ± 1.2 (3)\n\"say \"\"d\"\"\",–\n";
        assert_eq!(csv(&example()), expected);
    }
}
