//! CLIP's byte-level BPE tokenizer, for a vocabulary of any size and in any of the files it is published in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs;
use std::path::Path;

use crate::Error;
use crate::config::write_json;
use crate::text_cleaning::Cleaning;

/// Marks the last symbol of a word.
pub(crate) const END_OF_WORD: &str = "</w>";
/// The start token.
pub(crate) const START_OF_TEXT: &str = "<|startoftext|>";
/// The end token.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

/// Characters of a text that an error shows.
const SHOWN: usize = 80;

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
    cleaning: Cleaning,
}

impl Tokenizer {
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
            cleaning: Cleaning::default(),
        })
    }

    /// The same tokenizer with texts cleaned in another way; [`Cleaning::OpenAi`] unless this is called.
    pub fn with_cleaning(mut self, cleaning: Cleaning) -> Self {
        self.cleaning = cleaning;
        self
    }

    /// The same tokenizer padding with another token than its files name, such as 0 (`!`) for Stable Diffusion 2.
    pub fn with_pad_token_id(mut self, pad_token_id: u32) -> Self {
        self.pad_token_id = pad_token_id;
        self
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
        for (name, text) in [("vocab.json", vocab), ("merges.txt", merges)] {
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
        write_json(&dir.join("tokenizer_config.json"), &config)
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
        let text = self.cleaning.apply(text);
        let mut ids = Vec::new();
        for word in self.cleaning.words(&text) {
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
                let mut shown: String = text.chars().take(SHOWN).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                return Err(Error::TextTooLong { text: shown, num_tokens, limit: context_length });
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

    /// Merges the bytes of one word: all occurrences of the pair of best rank from left to right, then of the next.
    ///
    /// Pairs wait in a heap, so a word of any length takes n log n steps.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        let mut symbols: Vec<u32> = bytes.iter().map(|&byte| self.inner_bytes[usize::from(byte)]).collect();
        if let (Some(symbol), Some(&byte)) = (symbols.last_mut(), bytes.last()) {
            *symbol = self.last_bytes[usize::from(byte)];
        }
        let len = symbols.len();
        // Neighbours of each symbol that is still there; a symbol that was merged into its left neighbour is `GONE`.
        const GONE: u32 = u32::MAX;
        let mut next: Vec<usize> = (1..=len).collect();
        let mut previous: Vec<usize> = (0..len).map(|at| at.wrapping_sub(1)).collect();
        let rank = |left: u32, right: u32| self.ranks.get(&(left, right)).copied();
        let pairs = symbols.windows(2).enumerate();
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> = pairs
            .filter_map(|(at, pair)| rank(pair[0], pair[1]).map(|(rank, _)| Reverse((rank, at))))
            .collect();
        let mut positions = Vec::new();
        while let Some(&Reverse((best, _))) = heap.peek() {
            positions.clear();
            while let Some(&Reverse((rank, at))) = heap.peek()
                && rank == best
            {
                positions.push(at);
                heap.pop();
            }
            for &at in &positions {
                let right = next[at];
                if symbols[at] == GONE || right >= len {
                    continue;
                }
                // The pair may have changed since it was put into the heap.
                let Some((found, merged)) = rank(symbols[at], symbols[right]) else { continue };
                if found != best {
                    continue;
                }
                symbols[at] = merged;
                symbols[right] = GONE;
                next[at] = next[right];
                if next[at] < len {
                    previous[next[at]] = at;
                    if let Some((rank, _)) = rank(merged, symbols[next[at]]) {
                        heap.push(Reverse((rank, at)));
                    }
                }
                if previous[at] < len
                    && let Some((rank, _)) = rank(symbols[previous[at]], merged)
                {
                    heap.push(Reverse((rank, previous[at])));
                }
            }
        }
        ids.extend(symbols.into_iter().filter(|symbol| *symbol != GONE));
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
