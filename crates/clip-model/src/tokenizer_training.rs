//! Training of a byte-level BPE vocabulary in CLIP's layout: 256 bytes, 256 bytes at the end of a word, merges, two specials.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::text_cleaning::Cleaning;
use crate::tokenizer::{END_OF_TEXT, END_OF_WORD, START_OF_TEXT, Tokenizer, byte_characters, merge};

/// Tokens that every vocabulary has: both forms of every byte and the two specials.
const MIN_VOCAB_SIZE: usize = 2 * 256 + 2;
/// A pair seen once teaches nothing about other texts.
const MIN_PAIR_COUNT: u64 = 2;

/// Learns a vocabulary of at most `vocab_size` tokens (and at least the 514 fixed ones) from texts.
///
/// Each step merges the pair of symbols that is most frequent within words, the alphabetically first among equals; it stops
/// early when no pair occurs twice. The result depends on the texts alone, not on their order.
pub fn train_bpe(texts: &[String], vocab_size: usize) -> Tokenizer {
    let characters = byte_characters();
    let mut symbols: Vec<String> = byte_order().map(|byte| characters[byte].to_string()).collect();
    symbols.extend(byte_order().map(|byte| format!("{}{END_OF_WORD}", characters[byte])));
    let index: HashMap<String, usize> =
        symbols.iter().enumerate().map(|(index, symbol)| (symbol.clone(), index)).collect();
    let mut counts: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    let cleaning = Cleaning::default();
    for text in texts {
        for word in
            cleaning.words(&cleaning.apply(text)).filter(|word| ![START_OF_TEXT, END_OF_TEXT].contains(word))
        {
            let last = word.len() - 1;
            let spell = |(at, byte): (usize, u8)| {
                let character = characters[usize::from(byte)];
                let suffix = if at == last { END_OF_WORD } else { "" };
                index[&format!("{character}{suffix}")]
            };
            *counts.entry(word.bytes().enumerate().map(spell).collect()).or_default() += 1;
        }
    }
    let mut spelled: Vec<(Vec<usize>, u64)> = counts.into_iter().collect();
    let mut merges = Vec::new();
    for _ in MIN_VOCAB_SIZE..vocab_size {
        let Some(pair) = most_frequent_pair(&spelled, &symbols) else { break };
        let merged = symbols.len();
        merges.push((symbols[pair.0].clone(), symbols[pair.1].clone()));
        symbols.push(format!("{}{}", symbols[pair.0], symbols[pair.1]));
        for (word, _) in &mut spelled {
            *word = merge(word, pair, merged);
        }
    }
    symbols.extend([START_OF_TEXT.to_owned(), END_OF_TEXT.to_owned()]);
    let vocab = symbols.into_iter().zip(0..).collect();
    Tokenizer::from_parts(vocab, merges, END_OF_TEXT, Path::new("trained vocabulary"))
        .expect("training writes every token that its merges use, once")
}

/// Bytes in the order of OpenAI's vocabulary: printable ones first.
pub(crate) fn byte_order() -> impl Iterator<Item = usize> {
    let is_printable = |byte: &usize| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    (0..256).filter(is_printable).chain((0..256).filter(move |byte| !is_printable(byte)))
}

fn most_frequent_pair(words: &[(Vec<usize>, u64)], symbols: &[String]) -> Option<(usize, usize)> {
    let mut counts: HashMap<(usize, usize), u64> = HashMap::new();
    for (word, count) in words {
        for pair in word.windows(2) {
            *counts.entry((pair[0], pair[1])).or_default() += count;
        }
    }
    let name = |pair: (usize, usize)| (&symbols[pair.0], &symbols[pair.1]);
    counts
        .into_iter()
        .filter(|(pair, count)| *count >= MIN_PAIR_COUNT && !is_taken(*pair, symbols))
        .max_by(|(a, m), (b, n)| m.cmp(n).then_with(|| name(*b).cmp(&name(*a))))
        .map(|(pair, _)| pair)
}

/// Whether the merged text is a token already: two pairs may spell the same token, and a token has one id.
fn is_taken((left, right): (usize, usize), symbols: &[String]) -> bool {
    let text = format!("{}{}", symbols[left], symbols[right]);
    symbols.contains(&text)
}
