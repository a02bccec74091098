//! A safetensors file, opened and read tensor by tensor.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::read_weights(&fuzz::file("model.safetensors", data)));
