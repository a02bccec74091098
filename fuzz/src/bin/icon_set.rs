//! `icons.json` of an Iconify package: every icon as an SVG document, rendered.

#![no_main]

use dataset_pack::render::render_png;
use dataset_pack::source::iconify::IconSet;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(json) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(set) = serde_json::from_value::<IconSet>(json.clone()) else { return };
    let names = ["icons", "aliases"]
        .iter()
        .filter_map(|table| json.get(table)?.as_object())
        .flat_map(|table| table.keys());
    for name in names.take(4) {
        assert!(set.contains(name));
        if let Ok(svg) = set.svg(name) {
            let _ = render_png(&svg, 24);
        }
    }
});
