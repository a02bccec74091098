//! CLIP's byte-level BPE tokenizer over `vocab.json` and `merges.txt`, for a vocabulary of any size.
//!
//! Text is cleaned as OpenAI's code does it: Unicode NFC, HTML references resolved twice, white space collapsed, lower case.
//! The repair of mojibake and the uncurling of quotes by ftfy are left out, as in transformers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use crate::Error;
use crate::config::{read_json, write_json};
use crate::html_entities::unescape;

/// Marks the last symbol of a word.
pub(crate) const END_OF_WORD: &str = "</w>";
/// The start token.
pub(crate) const START_OF_TEXT: &str = "<|startoftext|>";
/// The end token.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

const VOCAB_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Special tokens, English contractions, runs of letters, single digits, runs of anything else.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern =
        r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
    Regex::new(pattern).expect("the pattern is a constant")
});

/// A CLIP tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    /// Rank and result of merging two tokens.
    ranks: HashMap<(u32, u32), (u32, u32)>,
    /// Ids of the 256 bytes, inside a word and at its end.
    inner_bytes: Vec<u32>,
    last_bytes: Vec<u32>,
    bos_token_id: u32,
    eos_token_id: u32,
    pad_token_id: u32,
}

/// A token in `special_tokens_map.json`: its text, or an object that holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Object { content: String },
}

#[derive(Deserialize)]
struct SpecialTokens {
    pad_token: Option<SpecialToken>,
}

impl Tokenizer {
    /// Reads `vocab.json` and `merges.txt`, and the padding token from `special_tokens_map.json` or `tokenizer_config.json`
    /// if there is one (Stable Diffusion 2 pads with `!`, everything else with the end token).
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or is malformed, a token of a merge, a byte or a special token is not in the
    /// vocabulary, or two tokens share an id.
    pub fn from_folder(dir: &Path) -> Result<Self, Error> {
        let vocab_path = dir.join(VOCAB_FILE);
        let vocab: HashMap<String, u32> = read_json(&vocab_path, "vocabulary (token to id)")?;
        let merges_path = dir.join(MERGES_FILE);
        let text = fs::read_to_string(&merges_path)
            .map_err(|source| Error::Read { path: merges_path.clone(), source })?;
        let merges = parse_merges(&merges_path, &text)?;
        let pad_token = match read_pad_token(&dir.join(SPECIAL_TOKENS_FILE))? {
            Some(token) => Some(token),
            None => read_pad_token(&dir.join(TOKENIZER_CONFIG_FILE))?,
        };
        Self::from_parts(vocab, merges, pad_token.as_deref().unwrap_or(END_OF_TEXT), &vocab_path)
    }

    /// Builds the look-up tables; `path` names the vocabulary in errors.
    pub(crate) fn from_parts(
        vocab: HashMap<String, u32>,
        merges: Vec<(String, String)>,
        pad_token: &str,
        path: &Path,
    ) -> Result<Self, Error> {
        refuse_shared_ids(&vocab, path)?;
        let id = |token: &str, needed_by: &dyn Fn() -> String| {
            vocab.get(token).copied().ok_or_else(|| Error::MissingToken {
                path: path.to_owned(),
                token: token.to_owned(),
                needed_by: needed_by(),
            })
        };
        let special = || "CLIP needs as a special token".to_owned();
        let mut ranks = HashMap::with_capacity(merges.len());
        for (rank, (left, right)) in merges.iter().enumerate() {
            let needed_by = || format!("merge {} `{left} {right}` uses", rank + 1);
            let pair = (id(left, &needed_by)?, id(right, &needed_by)?);
            let merged = id(&format!("{left}{right}"), &needed_by)?;
            ranks.insert(pair, (rank as u32, merged));
        }
        let byte = || "stands for one byte".to_owned();
        let bytes = |suffix: &str| {
            byte_characters()
                .iter()
                .map(|c| id(&format!("{c}{suffix}"), &byte))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Tokenizer {
            inner_bytes: bytes("")?,
            last_bytes: bytes(END_OF_WORD)?,
            bos_token_id: id(START_OF_TEXT, &special)?,
            eos_token_id: id(END_OF_TEXT, &special)?,
            pad_token_id: id(pad_token, &special)?,
            ranks,
            merges,
            vocab,
        })
    }

    /// Writes `vocab.json`, `merges.txt` and `tokenizer_config.json` into an existing folder.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn save_to_folder(&self, dir: &Path) -> Result<(), Error> {
        let mut tokens: Vec<(&String, &u32)> = self.vocab.iter().collect();
        tokens.sort_by_key(|(_, id)| **id);
        let pad_token = tokens
            .iter()
            .find(|(_, id)| **id == self.pad_token_id)
            .map_or(END_OF_TEXT, |(token, _)| token.as_str());
        let lines: Vec<String> =
            tokens.iter().map(|(token, id)| format!("  {}: {id}", serde_json::json!(token))).collect();
        let vocab = format!("{{\n{}\n}}\n", lines.join(",\n"));
        let mut merges = String::from("#version: 0.2\n");
        for (left, right) in &self.merges {
            merges.push_str(&format!("{left} {right}\n"));
        }
        for (name, text) in [(VOCAB_FILE, vocab), (MERGES_FILE, merges)] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
        }
        let config = serde_json::json!({
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": START_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "pad_token": pad_token,
        });
        write_json(&dir.join(TOKENIZER_CONFIG_FILE), &config)
    }

    /// Rows that a token embedding needs: the highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab.values().max().map_or(0, |id| *id as usize + 1)
    }

    /// Id of the start token.
    pub fn bos_token_id(&self) -> u32 {
        self.bos_token_id
    }

    /// Id of the end token.
    pub fn eos_token_id(&self) -> u32 {
        self.eos_token_id
    }

    /// Id of the padding token.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// Token ids of a text, without start and end.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = clean(text);
        let mut ids = Vec::new();
        for word in words(&text) {
            match word {
                START_OF_TEXT => ids.push(self.bos_token_id),
                END_OF_TEXT => ids.push(self.eos_token_id),
                _ => self.encode_word(word, &mut ids),
            }
        }
        ids
    }

    /// Token ids of several texts: start, text, end, padding, each `context_length` long.
    ///
    /// With `truncate` a longer text loses its tail and keeps the end token.
    ///
    /// # Errors
    ///
    /// Fails if a text is too long and `truncate` is off, or if `context_length` is below 2.
    pub fn encode_batch(
        &self,
        texts: &[impl AsRef<str>],
        context_length: usize,
        truncate: bool,
    ) -> Result<Vec<Vec<i64>>, Error> {
        if context_length < 2 {
            return Err(Error::ContextTooShort(context_length));
        }
        let encode = |text: &str| {
            let mut ids = self.encode(text);
            let num_tokens = ids.len() + 2;
            if num_tokens > context_length && !truncate {
                return Err(Error::TextTooLong { text: text.to_owned(), num_tokens, limit: context_length });
            }
            ids.truncate(context_length - 2);
            let mut row = Vec::with_capacity(context_length);
            row.push(i64::from(self.bos_token_id));
            row.extend(ids.into_iter().map(i64::from));
            row.push(i64::from(self.eos_token_id));
            row.resize(context_length, i64::from(self.pad_token_id));
            Ok(row)
        };
        texts.iter().map(|text| encode(text.as_ref())).collect()
    }

    /// Merges the bytes of one word, best rank first.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        let mut symbols: Vec<u32> = bytes.iter().map(|&byte| self.inner_bytes[usize::from(byte)]).collect();
        if let (Some(symbol), Some(&byte)) = (symbols.last_mut(), bytes.last()) {
            *symbol = self.last_bytes[usize::from(byte)];
        }
        loop {
            let best = symbols
                .windows(2)
                .filter_map(|pair| {
                    self.ranks
                        .get(&(pair[0], pair[1]))
                        .map(|(rank, merged)| (*rank, (pair[0], pair[1]), *merged))
                })
                .min();
            let Some((_, pair, merged)) = best else { break };
            symbols = merge(&symbols, pair, merged);
        }
        ids.extend(symbols);
    }
}

/// Replaces every occurrence of a pair, left to right.
pub(crate) fn merge<T: Copy + PartialEq>(symbols: &[T], pair: (T, T), merged: T) -> Vec<T> {
    let mut out = Vec::with_capacity(symbols.len());
    let mut index = 0;
    while index < symbols.len() {
        if index + 1 < symbols.len() && (symbols[index], symbols[index + 1]) == pair {
            out.push(merged);
            index += 2;
        } else {
            out.push(symbols[index]);
            index += 1;
        }
    }
    out
}

/// The printable character that stands for each byte in the vocabulary files: itself if printable in Latin-1, else one from
/// U+0100 on.
pub(crate) fn byte_characters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            let stand_in = char::from_u32(next).expect("the range holds no surrogate");
            next += 1;
            stand_in
        }
    })
}

/// Cleans a text before it is split.
pub(crate) fn clean(text: &str) -> String {
    let text: String = text.nfc().collect();
    let text = unescape(&unescape(&text));
    // Python counts the four separators U+001C to U+001F as white space too.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase()
}

/// Splits a cleaned text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    WORDS.find_iter(text).map(|found| found.as_str())
}

fn parse_merges(path: &Path, text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut merges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                merges.push((left.to_owned(), right.to_owned()));
            }
            _ => {
                return Err(Error::MergesLine {
                    path: path.to_owned(),
                    line: index + 1,
                    found: line.to_owned(),
                });
            }
        }
    }
    Ok(merges)
}

/// The padding token that a file names; `None` if the file is not there or names none.
fn read_pad_token(path: &Path) -> Result<Option<String>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let tokens: SpecialTokens = read_json(path, "list of special tokens")?;
    Ok(tokens.pad_token.map(|token| match token {
        SpecialToken::Text(text) | SpecialToken::Object { content: text } => text,
    }))
}

fn refuse_shared_ids(vocab: &HashMap<String, u32>, path: &Path) -> Result<(), Error> {
    let mut owners: HashMap<u32, &str> = HashMap::with_capacity(vocab.len());
    for (token, &id) in vocab {
        if let Some(other) = owners.insert(id, token) {
            let (first, second) =
                if other < token.as_str() { (other, token.as_str()) } else { (token.as_str(), other) };
            return Err(Error::DuplicateTokenId {
                path: path.to_owned(),
                id,
                first: first.to_owned(),
                second: second.to_owned(),
            });
        }
    }
    Ok(())
}
