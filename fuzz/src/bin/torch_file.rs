//! A file of `torch.save` or `torch.jit.save`, its container included.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::read_weights(&fuzz::file("model.pt", data)));
