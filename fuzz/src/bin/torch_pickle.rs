//! The pickle of a `.pt` file in a sound archive, so that no checksum hides it, with two storages of 64 bytes.

#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use zip::ZipWriter;
use zip::write::FileOptions;

fuzz_target!(|data: &[u8]| {
    let storage: Vec<u8> = (0..64).collect();
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let entries: [(&str, &[u8]); 4] = [
        ("archive/data.pkl", data),
        ("archive/data/0", &storage),
        ("archive/data/1", &storage),
        ("archive/version", b"3\n"),
    ];
    for (name, bytes) in entries {
        archive.start_file(name, FileOptions::default()).expect("memory");
        archive.write_all(bytes).expect("memory");
    }
    let archive = archive.finish().expect("memory").into_inner();
    fuzz::read_weights(&fuzz::file("model.pt", &archive));
});
