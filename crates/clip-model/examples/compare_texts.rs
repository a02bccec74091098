//! Compares token ids with open_clip's on texts that `tests/scale/texts.py` has written.
//!
//! `cargo run --release -p clip-model --example compare_texts -- TEXTS TOKENIZER`, where TOKENIZER is a folder or file with the
//! vocabulary of the script's tokenizer. Ends with status 1 if an id differs
//! in a text whose characters all parts of the reference know.
#![allow(clippy::print_stdout)] // the table is what the program is for

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clip_model::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    source: String,
    text: String,
    ids: Vec<u32>,
}

/// Differences that are printed one by one.
const SHOWN: usize = 20;

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [texts, tokenizer] = arguments.as_slice() else {
        bail!("expected the file that texts.py has written, and a tokenizer");
    };
    let tokenizer = Tokenizer::open(Path::new(tokenizer))?;
    let texts = std::fs::read_to_string(texts)?;
    let rows: Vec<Row> = texts.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let found: Vec<Vec<u32>> = rows.iter().map(|row| tokenizer.encode(&row.text)).collect();
    let seconds = started.elapsed().as_secs_f64();
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut shown = 0;
    for (row, found) in rows.iter().zip(&found) {
        let (texts, differing) = table.entry(&row.source).or_default();
        *texts += 1;
        if *found != row.ids {
            *differing += 1;
            shown += 1;
            if shown <= SHOWN {
                let text: String = row.text.chars().take(120).collect();
                println!("{}: {text:?}\n  expected {:?}\n  found    {found:?}", row.source, row.ids);
            }
        }
    }
    println!("| source | texts | differing |\n|---|---:|---:|");
    for (source, (texts, differing)) in &table {
        println!("| {source} | {texts} | {differing} |");
    }
    // Newer characters are counted, but promised nothing: Python's own parts disagree about them.
    let promised = table.iter().filter(|(source, _)| !source.starts_with("characters newer"));
    let differing: usize = promised.map(|(_, (_, differing))| differing).sum();
    println!("{} texts, {differing} differing, {seconds:.2} s", rows.len());
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
