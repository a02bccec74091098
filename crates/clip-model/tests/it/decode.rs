//! Decoding of image files against Pillow, and of files that are damaged, cut off or forged.

use std::fs;
use std::path::Path;

use clip_model::{DecodedImage, Error, MAX_IMAGE_PIXELS, Preprocess, jpeg_decoder};
use serde::Deserialize;

use crate::golden::{Golden, path};

/// One file of `golden/images`, with the CRC-32 of the samples that Pillow and torchvision give.
#[derive(Deserialize)]
struct File {
    name: String,
    mode: String,
    size: usize,
    rgb: u32,
    square: u32,
    rgb_first: u32,
}

fn files() -> Vec<File> {
    serde_json::from_slice(&fs::read(path("images/files.json")).unwrap()).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    fs::read(path("images").join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<DecodedImage, Error> {
    DecodedImage::from_bytes(bytes, Path::new("picture"))
}

#[test]
fn png_files_of_every_mode_equal_pillow() {
    let files: Vec<File> = files().into_iter().filter(|file| file.name.ends_with(".png")).collect();
    for file in &files {
        let image = decode(&read(&file.name)).unwrap();
        assert_eq!(image.mode(), file.mode, "{}", file.name);
        let preprocess = Preprocess::new(file.size);
        let square = preprocess.square_of(&image);
        let rgb = image.into_rgb();
        assert_eq!(crc32fast::hash(rgb.as_raw()), file.rgb, "{}", file.name);
        assert_eq!(crc32fast::hash(square.as_raw()), file.square, "{}, resized first", file.name);
        let rgb_first = preprocess.square(&rgb);
        assert_eq!(crc32fast::hash(rgb_first.as_raw()), file.rgb_first, "{}, RGB first", file.name);
    }
    assert!(files.len() >= 60, "{}", files.len());
}

/// libjpeg-turbo gives Pillow's samples. The pure Rust decoder rounds differently by up to 3 levels, and by more where colour
/// is subsampled: it interpolates over the padding at the right and lower edge.
#[test]
fn jpeg_files_equal_pillow_or_stay_within_the_stated_deviation() {
    let golden = Golden::open("images/reference.safetensors");
    let files: Vec<File> = files().into_iter().filter(|file| file.name.ends_with(".jpg")).collect();
    let is_exact = jpeg_decoder().starts_with("libjpeg");
    for file in &files {
        let image = decode(&read(&file.name)).unwrap();
        assert_eq!(image.mode(), file.mode, "{}", file.name);
        let square = Preprocess::new(file.size).square_of(&image);
        let rgb = image.into_rgb();
        let expected = golden.bytes(&file.name);
        assert_eq!(rgb.as_raw().len(), expected.len(), "{}", file.name);
        let differences = rgb.as_raw().iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
        let mean = differences.clone().map(f64::from).sum::<f64>() / expected.len() as f64;
        let largest = differences.max().unwrap();
        eprintln!("{}: largest {largest}, mean {mean:.3}", file.name);
        if is_exact {
            assert_eq!(largest, 0, "{}", file.name);
            assert_eq!(crc32fast::hash(square.as_raw()), file.square, "{}", file.name);
        }
        let has_full_color = ["444", "-l.", "cmyk", "keep-rgb"].iter().any(|kind| file.name.contains(kind));
        assert!(
            largest <= if has_full_color { 3 } else { 96 } && mean < 8.0,
            "{}: {largest}, {mean}",
            file.name
        );
    }
    assert!(files.len() >= 25, "{}", files.len());
}

#[test]
fn files_cut_off_anywhere_are_refused() {
    let mut tried = 0;
    for file in files() {
        let bytes = read(&file.name);
        // The last bytes of a PNG are checksums and a chunk that holds nothing: pixels may be whole without them.
        let end = if file.name.ends_with(".png") { bytes.len() - 32 } else { bytes.len() };
        for length in (0..end).step_by(1 + end / 40) {
            let error = decode(&bytes[..length]).expect_err(&file.name).to_string();
            assert!(error.contains("`picture`"), "{error}");
            tried += 1;
        }
    }
    eprintln!("{tried} files cut off");
    assert!(tried > 2000);
}

#[test]
fn flipped_bits_give_an_image_or_an_error() {
    let (mut refused, mut read_on) = (0, 0);
    let mut state = 1u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for file in files() {
        let bytes = read(&file.name);
        for round in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + round % 4 {
                // Half of them in the headers.
                let at = if round % 2 == 0 { draw(bytes.len()) } else { draw(bytes.len().min(80)) };
                damaged[at] ^= 1 << draw(8);
            }
            match decode(&damaged) {
                Ok(image) => {
                    assert!(image.width() > 0 && image.height() > 0);
                    read_on += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("`picture`"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    eprintln!("{refused} files refused, {read_on} read");
    assert!(refused + read_on > 5000 && refused > 1000);
}

/// A PNG with another size in its header, its checksum made right.
fn with_size(mut png: Vec<u8>, width: u32, height: u32) -> Vec<u8> {
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

/// A JPEG with another size in its header.
fn jpeg_with_size(mut jpeg: Vec<u8>, width: u16, height: u16) -> Vec<u8> {
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

#[test]
fn images_beyond_the_limit_are_refused_before_they_are_decoded() {
    let png = with_size(read("06-33x31-rgb.png"), 30_000, 30_000);
    let error = decode(&png).unwrap_err();
    let Error::ImageTooLarge { width: 30_000, height: 30_000, limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, MAX_IMAGE_PIXELS);
    let jpeg = jpeg_with_size(read("06-33x31-444.jpg"), 30_000, 30_000);
    let error = decode(&jpeg).unwrap_err();
    assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
    let error = decode(&with_size(read("06-33x31-l1.png"), u32::MAX >> 1, u32::MAX >> 1)).unwrap_err();
    assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
}

#[test]
fn headers_that_promise_more_than_the_file_holds_are_refused() {
    for name in ["06-33x31-rgb.png", "06-33x31-rgba16.png", "06-33x31-interlaced.png", "06-33x31-p1.png"] {
        let error = decode(&with_size(read(name), 12_000, 12_000)).unwrap_err();
        assert!(matches!(error, Error::ImageTooShort { .. }), "{name}: {error}");
    }
    let error = decode(&jpeg_with_size(read("06-33x31-444.jpg"), 12_000, 12_000)).unwrap_err();
    assert!(matches!(error, Error::ImageTooShort { .. }), "{error}");
    // A little larger than the data: found while decoding.
    assert!(decode(&with_size(read("06-33x31-rgb.png"), 33, 32)).is_err());
    assert!(decode(&with_size(read("06-33x31-rgb.png"), 0, 31)).is_err());
    assert!(decode(&jpeg_with_size(read("06-33x31-444.jpg"), 33, 0)).is_err());
}

#[test]
fn a_jpeg_of_a_thousand_scans_is_refused() {
    let bytes = read("06-33x31-420-progressive.jpg");
    let marker = |code: u8| bytes.windows(2).rposition(|pair| pair == [0xff, code]).unwrap();
    let (scan, end) = (marker(0xda), marker(0xd9));
    let mut bomb = bytes[..end].to_vec();
    for _ in 0..1000 {
        bomb.extend_from_slice(&bytes[scan..end]);
    }
    bomb.extend_from_slice(&bytes[end..]);
    let error = decode(&bomb).unwrap_err().to_string();
    assert!(error.contains("scans"), "{error}");
}

#[test]
fn files_of_other_formats_are_refused_by_their_first_bytes() {
    for bytes in [&b""[..], b"GIF89a", b"RIFF1234WEBPVP8 ", b"\x89PNG", b"hello"] {
        let error = decode(bytes).unwrap_err();
        assert!(matches!(&error, Error::ImageFormat { .. }), "{error}");
    }
    let error = DecodedImage::open(Path::new("/nowhere/picture.png")).unwrap_err();
    assert!(matches!(&error, Error::Read { .. }), "{error}");
}

#[test]
fn one_pixel_and_long_strips_become_squares() {
    let preprocess = Preprocess::new(224);
    for (width, height) in [(1, 1), (1, 60_000), (60_000, 1), (3, 20_000)] {
        let image =
            image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x % 251) as u8, (y % 251) as u8, 9]));
        assert_eq!(preprocess.square(&image).dimensions(), (224, 224));
    }
}
