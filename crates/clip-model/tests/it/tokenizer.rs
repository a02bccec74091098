//! The tokenizer against OpenAI's code (through open_clip) and transformers, and the training of a vocabulary.

use std::fs;
use std::io::Write as _;

use clip_model::{Cleaning, Error, Tokenizer, train_bpe};
use serde::Deserialize;

use crate::golden::path;

#[derive(Deserialize)]
struct Row {
    text: String,
    openai: Vec<u32>,
    transformers: Vec<u32>,
}

#[derive(Deserialize)]
struct Batch {
    texts: Vec<String>,
    padded_to_12: Vec<Vec<i64>>,
    truncated_to_5: Vec<Vec<i64>>,
    corpus: Vec<String>,
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(&path("tokenizer")).unwrap()
}

fn batch() -> Batch {
    serde_json::from_slice(&fs::read(path("tokenizer/batch.json")).unwrap()).unwrap()
}

#[test]
fn ids_match_openai_and_transformers() {
    let rows: Vec<Row> = serde_json::from_slice(&fs::read(path("tokenizer/expected.json")).unwrap()).unwrap();
    let (openai, transformers) = (tokenizer(), tokenizer().with_cleaning(Cleaning::Transformers));
    for row in &rows {
        assert_eq!(openai.encode(&row.text), row.openai, "{:?} as OpenAI", row.text);
        assert_eq!(transformers.encode(&row.text), row.transformers, "{:?} as transformers", row.text);
    }
    let apart = rows.iter().filter(|row| row.openai != row.transformers).count();
    eprintln!("{} texts equal both, of which {apart} differ between the two", rows.len());
}

#[test]
fn batch_is_padded_and_cut_as_in_transformers() {
    let batch = batch();
    assert_eq!(tokenizer().encode_batch(&batch.texts, 12, false).unwrap(), batch.padded_to_12);
    assert_eq!(tokenizer().encode_batch(&batch.texts, 5, true).unwrap(), batch.truncated_to_5);
}

#[test]
fn long_text_is_refused_with_its_length() {
    let error = tokenizer().encode_batch(&["a photo of a large elephant"], 5, false).unwrap_err();
    let Error::TextTooLong { text, num_tokens, limit } = &error else { panic!("{error}") };
    assert_eq!((text.as_str(), *num_tokens, *limit), ("a photo of a large elephant", 8, 5));
    assert!(matches!(tokenizer().encode_batch(&["a"], 1, true), Err(Error::ContextTooShort(1))));
}

#[test]
fn training_gives_the_plain_algorithm_s_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let batch = batch();
    let trained = train_bpe(&batch.corpus, 640);
    trained.save_to_folder(dir.path()).unwrap();
    let merges = |folder: &std::path::Path| fs::read_to_string(folder.join("merges.txt")).unwrap();
    assert_eq!(merges(dir.path()), merges(&path("tokenizer")));
    let vocab = |folder: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.join("vocab.json")).unwrap()).unwrap()
    };
    assert_eq!(vocab(dir.path()), vocab(&path("tokenizer")));
    let reversed: Vec<String> = batch.corpus.iter().rev().cloned().collect();
    let (again, folder) = (train_bpe(&reversed, 640), tempfile::tempdir().unwrap());
    again.save_to_folder(folder.path()).unwrap();
    assert_eq!(merges(dir.path()), merges(folder.path()));
    assert_eq!(train_bpe(&batch.corpus, 0).vocab_size(), 514);
    assert_eq!(train_bpe(&batch.corpus, 530).vocab_size(), 530);
    let read = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(read.encode("a wild elephant"), trained.encode("a wild elephant"));
    assert_eq!(read.pad_token_id(), read.eos_token_id());
}

/// A folder with the golden vocabulary, changed.
fn folder(
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>, &mut String),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut vocab = serde_json::from_slice(&fs::read(path("tokenizer/vocab.json")).unwrap()).unwrap();
    let mut merges = fs::read_to_string(path("tokenizer/merges.txt")).unwrap();
    change(&mut vocab, &mut merges);
    fs::write(dir.path().join("vocab.json"), serde_json::Value::from(vocab).to_string()).unwrap();
    fs::write(dir.path().join("merges.txt"), merges).unwrap();
    dir
}

#[test]
fn malformed_vocabulary_is_refused_by_name() {
    let error = |dir: tempfile::TempDir| Tokenizer::from_folder(dir.path()).unwrap_err();
    let e = error(folder(|vocab, _| drop(vocab.remove("<|endoftext|>"))));
    assert!(matches!(&e, Error::MissingToken { token, .. } if token == "<|endoftext|>"), "{e}");
    let e = error(folder(|vocab, _| drop(vocab.remove("q</w>"))));
    assert!(matches!(&e, Error::MissingToken { token, .. } if token == "q</w>"), "{e}");
    let e = error(folder(|vocab, _| drop(vocab.insert("a".to_owned(), 1.into()))));
    assert!(matches!(&e, Error::DuplicateTokenId { id: 1, .. }), "{e}");
    let e = error(folder(|_, merges| merges.push_str("zq zq\n")));
    assert!(matches!(&e, Error::MissingToken { token, .. } if token == "zq"), "{e}");
    let e = error(folder(|_, merges| merges.insert_str(14, "one two three\n")));
    assert!(matches!(&e, Error::MergesLine { line: 2, .. }), "{e}");
    let e = error(folder(|vocab, _| drop(vocab.insert("a".to_owned(), "x".into()))));
    assert!(matches!(&e, Error::Json { .. }), "{e}");
}

#[test]
fn padding_token_comes_from_the_special_tokens_map_first() {
    let dir = folder(|_, _| {});
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"pad_token": "<|endoftext|>"}"#).unwrap();
    fs::write(dir.path().join("special_tokens_map.json"), r#"{"pad_token": {"content": "!"}}"#).unwrap();
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(tokenizer.pad_token_id(), 0);
    let row = tokenizer.encode_batch(&[""], 4, false).unwrap();
    let (bos, eos) = (i64::from(tokenizer.bos_token_id()), i64::from(tokenizer.eos_token_id()));
    assert_eq!(row, [[bos, eos, 0, 0]]);
}

#[test]
fn every_published_file_gives_the_same_ids() {
    let dir = tempfile::tempdir().unwrap();
    let expected = tokenizer();
    let vocab: serde_json::Value =
        serde_json::from_slice(&fs::read(path("tokenizer/vocab.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(path("tokenizer/merges.txt")).unwrap();
    let lines: Vec<&str> = merges.lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let fast = |merges: serde_json::Value| {
        let mut vocab = vocab.clone();
        let eos = vocab.as_object_mut().unwrap().remove("<|endoftext|>").unwrap();
        let added = serde_json::json!([{"id": eos, "content": "<|endoftext|>", "special": true}]);
        let model = serde_json::json!({"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab, "merges": merges});
        serde_json::json!({"version": "1.0", "added_tokens": added, "model": model}).to_string()
    };
    fs::write(dir.path().join("lines.json"), fast(serde_json::json!(lines))).unwrap();
    fs::write(dir.path().join("pairs.json"), fast(serde_json::json!(pairs))).unwrap();
    // The vocabulary of the golden file is in OpenAI's order, so its merges alone give the same ids.
    fs::write(dir.path().join("bpe.txt"), &merges).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(merges.as_bytes()).unwrap();
    fs::write(dir.path().join("bpe.txt.gz"), packed.finish().unwrap()).unwrap();
    for name in ["lines.json", "pairs.json", "bpe.txt", "bpe.txt.gz"] {
        let found = Tokenizer::open(&dir.path().join(name)).unwrap();
        assert_eq!(found.vocab_size(), expected.vocab_size(), "{name}");
        for text in batch().corpus {
            assert_eq!(found.encode(&text), expected.encode(&text), "{name}: {text}");
        }
        let is_openai = name.starts_with("bpe");
        assert_eq!(found.pad_token_id(), if is_openai { 0 } else { expected.eos_token_id() }, "{name}");
    }
    assert!(
        Tokenizer::open(&path("tokenizer")).is_ok() && Tokenizer::open(&path("tokenizer/vocab.json")).is_ok()
    );
    fs::rename(dir.path().join("bpe.txt.gz"), dir.path().join("bpe_simple_vocab_16e6.txt.gz")).unwrap();
    assert!(Tokenizer::from_folder(dir.path()).is_ok());
}

#[test]
fn malformed_tokenizer_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer { .. }), "{error}");
    let open = |name: &str, bytes: &[u8]| {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        Tokenizer::open(&file).unwrap_err()
    };
    let e = open("a.json", br#"{"model": {"type": "WordPiece", "vocab": {}, "merges": []}}"#);
    assert!(matches!(&e, Error::Field { field, .. } if field == "model.type"), "{e}");
    let e = open("b.json", br#"{"model": {"vocab": {}, "merges": ["a b c"]}}"#);
    assert!(matches!(&e, Error::Field { field, .. } if field == "model.merges[0]"), "{e}");
    let e = open("c.json", br#"{"model": {}}"#);
    assert!(matches!(&e, Error::Json { .. }), "{e}");
    let e = open("d.txt.gz", b"no gzip");
    assert!(matches!(&e, Error::Read { .. }), "{e}");
    let e = open("e.txt", b"hello\n");
    assert!(matches!(&e, Error::MergesLine { line: 1, .. }), "{e}");
    let e = open("f.txt", b"#version: 0.2\na b\nab\n");
    assert!(matches!(&e, Error::MergesLine { line: 3, .. }), "{e}");
    let e = open("g.txt", b"#version: 0.2\nqqq zzz\n");
    assert!(matches!(&e, Error::MissingToken { .. }), "{e}");
}

#[test]
fn texts_of_ten_megabytes_are_read_or_refused_by_a_short_message() {
    let tokenizer = tokenizer();
    for unit in ["photo", "a photo of an elephant ", "\u{1f981}", "&amp;"] {
        let text = unit.repeat(10_000_000 / unit.len());
        let error = tokenizer.encode_batch(&[&text], 77, false).unwrap_err();
        assert!(error.to_string().len() < 1000);
        let row = tokenizer.encode_batch(&[&text], 77, true).unwrap();
        assert_eq!(row[0].len(), 77);
    }
}
