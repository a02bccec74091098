//! A lower bound of the tokens of a text in CLIP.

/// Contractions that CLIP's tokenizer takes as one piece.
const CONTRACTIONS: [&str; 7] = ["'re", "'ve", "'ll", "'s", "'t", "'m", "'d"];

/// Pieces into which CLIP's tokenizer splits `text` before it merges: contractions, runs of letters, single digits, runs
/// of other marks (`clip/simple_tokenizer.py` of openai/CLIP). Each becomes one token or more.
pub(crate) fn num_words(text: &str) -> usize {
    let text = text.to_lowercase();
    let mut rest = text.trim_start();
    let mut count = 0;
    while let Some(first) = rest.chars().next() {
        let is_mark = |c: char| !c.is_alphabetic() && !c.is_numeric() && !c.is_whitespace();
        let length = match CONTRACTIONS.iter().find(|c| rest.starts_with(**c)) {
            Some(contraction) => contraction.len(),
            None if first.is_alphabetic() => rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len()),
            None if first.is_numeric() => first.len_utf8(),
            None => rest.find(|c: char| !is_mark(c)).unwrap_or(rest.len()),
        };
        count += 1;
        rest = rest[length..].trim_start();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces and tokens (without the start and end of the text) by open_clip's `SimpleTokenizer`.
    #[test]
    fn words_are_the_pieces_of_clips_tokenizer_and_never_more_than_its_tokens() {
        let cases = [
            ("A photo of a pet abyssinian. it has a lean body, long neck, wedge-shaped head.", 21, 23),
            ("It's the dog's 3rd toy, isn't it?!", 13, 13),
            ("", 0, 0),
            ("   ", 0, 0),
            ("two  spaces\tand\nlines", 4, 4),
            ("737-800 (winglets)", 10, 11),
            ("l'été... naïve Eichhörnchen", 6, 13),
            ("'dog 'll we'll", 5, 5),
            ("🦊🦊 fox", 2, 5),
            ("don't \"quote\" me: 100%", 11, 11),
        ];
        for (text, pieces, tokens) in cases {
            assert_eq!(num_words(text), pieces, "{text}");
            assert!(pieces <= tokens, "{text}");
        }
    }
}
