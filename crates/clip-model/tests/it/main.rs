//! Integration tests of `clip-model`: parity with the reference implementations, strict loading, tokenizer, preprocessing.
#![allow(clippy::print_stderr)] // measured differences belong in the test log

mod config;
mod golden;
mod keys;
mod parity;
mod preprocess;
mod tokenizer;
mod weights;
