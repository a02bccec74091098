//! A split file, and a shot list in each of its forms.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use dataset_pack::shots::index_file;
use dataset_pack::split_file::SplitLists;
use libfuzzer_sys::fuzz_target;

static LISTS: LazyLock<SplitLists> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/split_file/split.json");
    SplitLists::read(&path).expect("the seed is a split file")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(lists) = SplitLists::read(&fuzz::file("split.json", data)) {
        let _ = (lists.class_names(), lists.entries_sha256());
    }
    for name in ["shots.json", "shots.tsv", "shots_train.jsonl"] {
        let _ = index_file::read(&fuzz::file(name, data), &LISTS);
    }
});
