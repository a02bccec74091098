//! An image file, through the check at packing, the smaller copy, and the decoder of training.

#![no_main]

use std::path::Path;

use clip_model::DecodedImage;
use dataset_pack::photo;
use libfuzzer_sys::fuzz_target;

/// Small, so that an execution takes milliseconds; the true limit is a number like this one.
const MAX_PIXELS: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(header) = photo::Header::read(data, MAX_PIXELS) else { return };
    let _ = header.remarks("image.jpg");
    let _ = photo::check(data, MAX_PIXELS);
    if let Ok(rgb) = photo::decode_rgb(data, &header) {
        assert_eq!((rgb.width(), rgb.height()), (header.width, header.height));
    }
    if let Ok(image) = DecodedImage::from_bytes(data, Path::new("image")) {
        let _ = image.into_rgb();
    }
});
