//! A part whose digest fits its record, so that the parser sees the damage; read as every kind that it names.

#![no_main]

use artifacts::{
    FeatureRow, FewshotRow, ImageRow, LatentRow, MetricRow, PredictionRow, PromptRow, Row, read_part,
};
use libfuzzer_sys::fuzz_target;
use pipeline_spec::{Key, PartRecord};

fuzz_target!(
    // The reader turns panics of the Parquet library into errors; only those that escape it count.
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| {
        read::<PromptRow>(data);
        read::<LatentRow>(data);
        read::<ImageRow>(data);
        read::<FewshotRow>(data);
        read::<FeatureRow>(data);
        read::<PredictionRow>(data);
        read::<MetricRow>(data);
    }
);

fn read<R: Row>(data: &[u8]) {
    if !data.windows(R::KIND.name().len()).any(|window| window == R::KIND.name().as_bytes()) {
        return;
    }
    fuzz::file("part.parquet", data);
    let part = PartRecord::measure(fuzz::folder(), "part.parquet", 1).expect("the file was written");
    let _ = read_part::<R>(fuzz::folder(), &part, &key_in(data));
}

/// The key that the file names, so that reading goes on after it was compared.
fn key_in(data: &[u8]) -> Key {
    let name = b"flier.key";
    let at = data.windows(name.len()).position(|window| window == name).map_or(0, |at| at + name.len());
    let mut texts = data[at..].windows(32).take(64).filter_map(|window| std::str::from_utf8(window).ok());
    let key = texts.find_map(|text| Key::try_from(text.to_owned()).ok());
    key.unwrap_or_else(|| Key::try_from("0".repeat(32)).expect("32 digits are a key"))
}
