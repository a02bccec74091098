//! Integration tests of `clip-model`: parity with the reference implementations, strict loading, tokenizer, preprocessing.
#![allow(clippy::print_stderr)] // measured differences belong in the test log

mod checkpoints;
mod config;
mod decode;
mod fetch;
mod golden;
mod hostile;
mod keys;
mod parity;
mod precision;
mod preprocess;
mod sharded;
mod tokenizer;
mod torch_files;
mod weights;
