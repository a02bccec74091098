//! HTML character references, resolved as Python's `html.unescape` does, because OpenAI's tokenizer cleans text with it.
//!
//! `html_entities.tsv` is the HTML standard's table of named references (<https://html.spec.whatwg.org/entities.json>): name,
//! then the code points in hexadecimal.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::text_cleaning::substitute;

/// Longest name without its semicolon that is looked at.
const MAX_NAME: usize = 32;

/// What the numbers 128 to 159 stand for: windows-1252, as browsers read them.
pub(crate) const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

static NAMED: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    let code_point = |hex: &str| {
        u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("the table holds code points")
    };
    include_str!("html_entities.tsv")
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, points)| (name, points.split(' ').map(code_point).collect()))
        .collect()
});

/// A reference that ends with a semicolon.
static MARKED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("the pattern is a constant"));

/// What [`unescape_marked`] takes beyond the standard's names: those in small letters, written in capitals, for the capital
/// ("&EACUTE;"), unless they already mean something.
static CAPITALS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let small = NAMED.iter().filter(|(name, _)| name.ends_with(';') && name.to_lowercase() == **name);
    small
        .map(|(name, value)| (name.to_uppercase(), value.to_uppercase()))
        .filter(|(name, _)| {
            let reference = format!("&{name}");
            unescape(&reference) == reference
        })
        .collect()
});

/// Replaces the references that end with a semicolon, as ftfy's `unescape_html` does.
pub(crate) fn unescape_marked(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    substitute(&MARKED, text, |reference| {
        let name = &reference[1..];
        if let Some(value) = NAMED.get(name).or_else(|| CAPITALS.get(name)) {
            return value.clone();
        }
        // Only what resolves as a whole.
        let resolved = if name.starts_with('#') { unescape(reference) } else { reference.to_owned() };
        if resolved.contains(';') { reference.to_owned() } else { resolved }
    })
}

/// Replaces every character reference.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let taken = match after.strip_prefix('#') {
            Some(number) => numeric(number, &mut out).map(|length| length + 1),
            None => named(after, &mut out),
        };
        match taken {
            Some(length) => rest = &after[length..],
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Resolves what follows `&#`; gives the length taken.
fn numeric(text: &str, out: &mut String) -> Option<usize> {
    let (radix, skipped) = if text.starts_with(['x', 'X']) { (16, 1) } else { (10, 0) };
    let digits = text[skipped..].bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
    if digits == 0 {
        return None;
    }
    let end = skipped + digits;
    // Overflow can only mean a number beyond Unicode.
    let number = u32::from_str_radix(&text[skipped..end], radix).unwrap_or(u32::MAX);
    match number {
        0 => out.push('\u{fffd}'),
        0x80..=0x9f => out.push(WINDOWS_1252[number as usize - 0x80]),
        // Non-characters vanish.
        1..=8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => {}
        _ if number <= 0x10_ffff && number & 0xfffe == 0xfffe => {}
        _ => out.push(char::from_u32(number).unwrap_or('\u{fffd}')),
    }
    Some(end + usize::from(text[end..].starts_with(';')))
}

/// Resolves a name: whole, else by its longest known prefix of two characters or more; gives the length taken.
fn named(text: &str, out: &mut String) -> Option<usize> {
    let mut ends: Vec<usize> = Vec::new();
    for (at, character) in text.char_indices().take(MAX_NAME) {
        if ['\t', '\n', '\u{c}', ' ', '<', '&', '#', ';'].contains(&character) {
            break;
        }
        ends.push(at + character.len_utf8());
    }
    let name_end = *ends.last()?;
    let end = name_end + usize::from(text[name_end..].starts_with(';'));
    if end > name_end {
        ends.push(end);
    }
    if let Some(value) = NAMED.get(&text[..end]) {
        out.push_str(value);
        return Some(end);
    }
    let prefixes = ends.get(1..ends.len() - 1).unwrap_or_default();
    let known =
        prefixes.iter().rev().find_map(|&prefix| NAMED.get(&text[..prefix]).map(|value| (prefix, value)));
    match known {
        Some((prefix, value)) => {
            out.push_str(value);
            out.push_str(&text[prefix..end]);
        }
        None => {
            out.push('&');
            out.push_str(&text[..end]);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn references_resolve_as_in_python() {
        for (text, expected) in [
            ("a &amp; b", "a & b"),
            ("&lt;b&gt;", "<b>"),
            ("caf&eacute; caf&eacute", "caf\u{e9} caf\u{e9}"),
            ("&notit; &notin;", "\u{ac}it; \u{2209}"),
            ("&#39;&#x27;&#x27", "'''"),
            ("&#128;&#0;&#xD800;&#99999999999;", "\u{20ac}\u{fffd}\u{fffd}\u{fffd}"),
            ("&#1;&#xFFFE;", ""),
            ("&unknown; & &; &#; &#x; &", "&unknown; & &; &#; &#x; &"),
            ("&a &a; &\u{e9} &lt &l", "&a &a; &\u{e9} < &l"),
            ("&ThickSpace;x", "\u{205f}\u{200a}x"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }
}
