//! What happens to a text before it is split into tokens.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::html_entities::{WINDOWS_1252, unescape, unescape_marked};

/// Code points that are repaired at once; a longer line is cut there, as in ftfy.
const MAX_SEGMENT: usize = 1_000_000;

/// How texts are cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleaning {
    /// As openai/CLIP and open_clip: ftfy's repairs but for mojibake (HTML references, ligatures, full-width letters, curly quotes,
    /// line breaks, control characters, NFC), HTML references resolved twice, white space collapsed, lower case.
    #[default]
    OpenAi,
    /// As transformers' `CLIPTokenizer`, which diffusers uses: NFC, white space collapsed, lower case.
    Transformers,
}

impl Cleaning {
    /// The cleaned text.
    pub(crate) fn apply(self, text: &str) -> String {
        match self {
            Cleaning::OpenAi => {
                let text = unescape(&unescape(&fix_text(text)));
                // Python counts the four separators U+001C to U+001F as white space too.
                let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
                collapse(&text, is_space).to_lowercase()
            }
            Cleaning::Transformers => {
                let text: String = text.nfc().collect();
                // Letter by letter: a sigma at the end of a word stays as it is elsewhere.
                collapse(&text, char::is_whitespace).chars().flat_map(char::to_lowercase).collect()
            }
        }
    }
}

fn collapse(text: &str, is_space: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// What ftfy's `fix_text` does with its defaults, line by line, except that text which was read in a wrong encoding stays.
fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut has_markup = false;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(MAX_SEGMENT).map_or(rest.len(), |(at, _)| at);
            let (segment, tail) = rest.split_at(end);
            // A literal `<` means that the text is HTML, whose references must stay; for the rest of the text too.
            has_markup |= segment.contains('<');
            out.push_str(&fix_segment(segment, has_markup));
            rest = tail;
        }
    }
    out
}

fn fix_segment(text: &str, has_markup: bool) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut text = text.to_owned();
    loop {
        let mut fixed = if has_markup { text.clone() } else { unescape_marked(&text) };
        fixed = fix_c1_controls(&fixed);
        fixed = fix_characters(&fixed);
        fixed = fixed.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        fixed = substitute(&ESCAPE, &fixed, |_| String::new());
        fixed.retain(|c| !is_control(c));
        if !is_nfc(&fixed) {
            fixed = fixed.nfc().collect();
        }
        if fixed == text {
            return Cow::Owned(fixed);
        }
        text = fixed;
    }
}

/// Whether no repair can find anything: printable ASCII without references.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'\t' | b'\n' | b' '..=b'~') && byte != b'&')
}

/// C1 controls as the characters that Windows-1252 has in their places.
fn fix_c1_controls(text: &str) -> String {
    let fix = |c: char| match c {
        '\u{80}'..='\u{9f}' => WINDOWS_1252[c as usize - 0x80],
        other => other,
    };
    text.chars().map(fix).collect()
}

/// Terminal escapes: colours and the like.
static ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("the pattern is a constant"));

/// Ligatures and digraphs, full-width and half-width forms, curly quotes.
fn fix_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match ligature(c) {
            Some(letters) => out.push_str(letters),
            None if c == '\u{3000}' => out.push(' '),
            None if ('\u{ff01}'..='\u{ffef}').contains(&c) => out.extend(std::iter::once(c).nfkc()),
            None if matches!(c, '\u{2bc}' | '\u{2018}'..='\u{201b}') => out.push('\''),
            None if matches!(c, '\u{201c}'..='\u{201f}') => out.push('"'),
            None => out.push(c),
        }
    }
    out
}

/// The letters of a ligature, as text would have them: the apostrophe of `ŉ` is uncurled already.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Control characters without effect on text: ASCII's but tab, line feed, form feed and carriage return, and some of Unicode's.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Special tokens, English contractions, runs of letters, single digits, runs of anything else. Cases are folded in the former
/// only, so that "'ſ" is a contraction. U+0345 belongs to nothing and is lost, as in Python: it is a mark, but its upper case
/// is a letter.
static OPENAI_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+";
    Regex::new(pattern).expect("the pattern is a constant")
});

/// The same without folding of cases.
static TRANSFORMERS_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
    Regex::new(pattern).expect("the pattern is a constant")
});

impl Cleaning {
    /// Splits a cleaned text.
    pub(crate) fn words(self, text: &str) -> impl Iterator<Item = &str> {
        let pattern: &'static Regex = match self {
            Cleaning::OpenAi => &OPENAI_WORDS,
            Cleaning::Transformers => &TRANSFORMERS_WORDS,
        };
        pattern.find_iter(text).map(|found| found.as_str())
    }
}

/// Replaces the matches of a pattern by what `replace` makes of them.
pub(crate) fn substitute(pattern: &Regex, text: &str, replace: impl Fn(&str) -> String) -> String {
    pattern.replace_all(text, |found: &Captures<'_>| replace(&found[0])).into_owned()
}
