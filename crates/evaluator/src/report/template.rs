//! The pages' forms.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, HtmlEscape};
use serde::Serialize;

use super::steps::{bytes_text, time_text};
use crate::Error;

/// Every form: the two pages, and what they share.
const TEMPLATES: [(&str, &str); 4] = [
    ("report", include_str!("report.html.j2")),
    ("benchmark", include_str!("benchmark.html.j2")),
    ("style", include_str!("style.html.j2")),
    ("macros", include_str!("macros.html.j2")),
];

/// A picture on a page.
#[derive(Serialize)]
pub(super) struct Picture {
    /// Heading and text for those who cannot see it.
    pub title: String,
    /// What is seen on it.
    pub caption: String,
    /// SVG markup, or nothing.
    pub svg: String,
    /// A data URI, or nothing.
    pub uri: String,
}

/// The page `name` with what `view` holds; it loads nothing from elsewhere.
pub(super) fn page(name: &str, view: &impl Serialize) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("bytes", bytes_text);
    environment.add_filter("code", code_html);
    environment.add_filter("time", time_text);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment.get_template(name)?.render(Serde(view))?)
}

/// Text with Markdown's code spans as HTML; everything else is escaped.
fn code_html(text: &str) -> Value {
    let escaped = HtmlEscape(text).to_string();
    let mut out = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        if index > 0 {
            out.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        out.push_str(part);
    }
    if escaped.matches('`').count() % 2 == 1 {
        out.push_str("</code>");
    }
    Value::from_safe_string(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_spans_become_elements_and_the_rest_is_escaped() {
        let html = |text| code_html(text).to_string();
        assert_eq!(html("`a<b>` & c"), "<code>a&lt;b&gt;</code> &amp; c");
        assert_eq!(html("an open ` tick"), "an open <code> tick</code>");
    }
}
