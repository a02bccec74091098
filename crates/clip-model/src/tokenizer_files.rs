//! The files a tokenizer is published in: `vocab.json` with `merges.txt`, `tokenizer.json`, OpenAI's `bpe_simple_vocab_16e6.txt.gz`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::Error;
use crate::config::read_json;
use crate::tokenizer::{END_OF_TEXT, END_OF_WORD, START_OF_TEXT, Tokenizer, byte_characters};
use crate::tokenizer_training::byte_order;

const VOCAB_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";
const FAST_FILE: &str = "tokenizer.json";
const OPENAI_FILE: &str = "bpe_simple_vocab_16e6.txt.gz";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Merges of OpenAI's vocabulary, as its code counts them: 49,152 less the bytes and the special tokens. With both forms of
/// the bytes they make 49,408 tokens. The file has more lines, which are left over from its making.
const OPENAI_MERGES: usize = 49_152 - 256 - 2;
/// Unpacked size of a merges file that is still read; OpenAI's has 3.2 MB.
const MAX_MERGES_BYTES: u64 = 64 << 20;

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

/// `tokenizer.json`, as far as CLIP needs it.
#[derive(Deserialize)]
struct FastTokenizer {
    model: FastModel,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct FastModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<FastMerge>,
    end_of_word_suffix: Option<String>,
}

/// A merge as a line of text, or as two tokens (tokenizers from 0.20 on).
#[derive(Deserialize)]
#[serde(untagged)]
enum FastMerge {
    Line(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Tokenizer {
    /// Reads a tokenizer from a folder or from one of its files.
    ///
    /// A folder may hold `vocab.json` and `merges.txt`, or `tokenizer.json`, or `bpe_simple_vocab_16e6.txt.gz`; the first found
    /// in this order is read. A file is `vocab.json`, `tokenizer.json` or a merges file of OpenAI's kind, packed (`.gz`) or not.
    /// The padding token comes from `special_tokens_map.json` or `tokenizer_config.json` beside it if there is one (Stable
    /// Diffusion 2 pads with `!`); without, it is the end token, and for OpenAI's file the id 0, as in its code.
    ///
    /// # Errors
    ///
    /// Fails if no file is there or one cannot be read or is malformed, a token of a merge, a byte or a special token is not in
    /// the vocabulary, or two tokens share an id.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Self::from_folder(path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == VOCAB_FILE {
            from_vocab_and_merges(&folder_of(path))
        } else if name.ends_with(".json") {
            from_fast(path)
        } else {
            from_openai(path)
        }
    }

    /// Reads a tokenizer from a folder; see [`Tokenizer::open`].
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::open`].
    pub fn from_folder(dir: &Path) -> Result<Self, Error> {
        if dir.join(VOCAB_FILE).exists() {
            from_vocab_and_merges(dir)
        } else if dir.join(FAST_FILE).exists() {
            from_fast(&dir.join(FAST_FILE))
        } else if dir.join(OPENAI_FILE).exists() {
            from_openai(&dir.join(OPENAI_FILE))
        } else {
            Err(Error::NoTokenizer {
                path: dir.to_owned(),
                expected: format!("`{VOCAB_FILE}` and `{MERGES_FILE}`, `{FAST_FILE}` or `{OPENAI_FILE}`"),
            })
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn from_vocab_and_merges(dir: &Path) -> Result<Tokenizer, Error> {
    let vocab_path = dir.join(VOCAB_FILE);
    let vocab: HashMap<String, u32> = read_json(&vocab_path, "vocabulary (token to id)")?;
    let merges_path = dir.join(MERGES_FILE);
    let text = fs::read_to_string(&merges_path)
        .map_err(|source| Error::Read { path: merges_path.clone(), source })?;
    let merges = parse_merges(&merges_path, &text)?;
    let pad_token = pad_token(dir)?;
    Tokenizer::from_parts(vocab, merges, pad_token.as_deref().unwrap_or(END_OF_TEXT), &vocab_path)
}

fn from_fast(path: &Path) -> Result<Tokenizer, Error> {
    let file: FastTokenizer = read_json(path, "tokenizer (`tokenizer.json`)")?;
    let field = |field: &str, expected: &str, found: String| Error::Field {
        path: path.to_owned(),
        field: field.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    if let Some(kind) = file.model.kind.filter(|kind| kind != "BPE") {
        return Err(field("model.type", "`BPE`", kind));
    }
    if let Some(suffix) = file.model.end_of_word_suffix.filter(|suffix| suffix != END_OF_WORD) {
        return Err(field("model.end_of_word_suffix", "`</w>`, as CLIP's vocabulary has it", suffix));
    }
    let mut vocab = file.model.vocab;
    vocab.extend(file.added_tokens.into_iter().map(|token| (token.content, token.id)));
    let pair = |(index, merge): (usize, FastMerge)| match merge {
        FastMerge::Pair(left, right) => Ok((left, right)),
        FastMerge::Line(line) => {
            split_merge(&line).ok_or_else(|| field(&format!("model.merges[{index}]"), "two tokens", line))
        }
    };
    let merges = file.model.merges.into_iter().enumerate().map(pair).collect::<Result<Vec<_>, _>>()?;
    let pad_token = pad_token(&folder_of(path))?;
    Tokenizer::from_parts(vocab, merges, pad_token.as_deref().unwrap_or(END_OF_TEXT), path)
}

/// OpenAI's merges file: the ids follow from the order of bytes and merges.
fn from_openai(path: &Path) -> Result<Tokenizer, Error> {
    let refuse = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(refuse)?;
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(file).take(MAX_MERGES_BYTES).read_to_string(&mut text).map_err(refuse)?;
    } else {
        file.take(MAX_MERGES_BYTES).read_to_string(&mut text).map_err(refuse)?;
    }
    let characters = byte_characters();
    let bytes = || byte_order().map(|byte| characters[byte].to_string());
    let mut tokens: Vec<String> = bytes().collect();
    tokens.extend(bytes().map(|byte| byte + END_OF_WORD));
    // The first line is a header.
    let kept = text.split_inclusive('\n').skip(1).take(OPENAI_MERGES).collect::<String>();
    let header = text.split_inclusive('\n').next().unwrap_or_default();
    if !header.contains("version") {
        return Err(Error::MergesLine {
            path: path.to_owned(),
            line: 1,
            found: header.trim_end().to_owned(),
        });
    }
    let merges = parse_merges(path, &format!("#version\n{kept}"))?;
    tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
    tokens.extend([START_OF_TEXT.to_owned(), END_OF_TEXT.to_owned()]);
    let pad_token = tokens[0].clone();
    // A token that two merges give has the later id, as in Python's dictionary.
    let vocab = tokens.into_iter().zip(0..).collect();
    Tokenizer::from_parts(vocab, merges, &pad_token, path)
}

fn parse_merges(path: &Path, text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut merges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let merge = split_merge(line).ok_or_else(|| {
            let found = line.chars().take(80).collect();
            Error::MergesLine { path: path.to_owned(), line: index + 1, found }
        })?;
        merges.push(merge);
    }
    Ok(merges)
}

/// Two tokens separated by one space.
fn split_merge(line: &str) -> Option<(String, String)> {
    match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Some((left.to_owned(), right.to_owned()))
        }
        _ => None,
    }
}

/// The padding token that the files of a folder name.
fn pad_token(dir: &Path) -> Result<Option<String>, Error> {
    match read_pad_token(&dir.join(SPECIAL_TOKENS_FILE))? {
        Some(token) => Ok(Some(token)),
        None => read_pad_token(&dir.join(TOKENIZER_CONFIG_FILE)),
    }
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
