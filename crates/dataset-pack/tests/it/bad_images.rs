//! Images that must be refused or remarked on: cut, mislabelled, CMYK, 16 bits, animated, huge.

use std::io::Cursor;

use dataset_pack::{photo, stored};
use image::{DynamicImage, ImageFormat, RgbImage};
use pipeline_spec::spec::{StoredFormat, StoredSize};

/// A picture with enough detail that its encoded bytes are long.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7 + y * 3) as u8, (x * y / 5) as u8, (x ^ y) as u8])
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn png(width: u32, height: u32) -> Vec<u8> {
    encoded(picture(width, height), ImageFormat::Png)
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(picture(width, height), ImageFormat::Jpeg)
}

pub fn progressive(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_progressive(true);
    encoder
        .encode(picture(width.into(), height.into()).as_raw(), width, height, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

pub fn cmyk() -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..16 * 16 * 4).map(|i| (i * 5) as u8).collect();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&pixels, 16, 16, jpeg_encoder::ColorType::Cmyk)
        .unwrap();
    bytes
}

pub fn animated() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 4);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 48]).unwrap();
    writer.write_image_data(&[200; 48]).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A PNG whose header promises `side` x `side` pixels.
pub fn bomb(side: u32) -> Vec<u8> {
    let mut bytes = png(2, 2);
    bytes[16..20].copy_from_slice(&side.to_be_bytes());
    bytes[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// CRC-32 of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 },
        )
    })
}

fn refusal(bytes: &[u8]) -> String {
    photo::check(bytes, photo::MAX_PIXELS).unwrap_err()
}

#[test]
fn files_cut_anywhere_are_refused() {
    let mut tried = 0;
    for whole in [png(40, 30), jpeg(40, 30), progressive(40, 30)] {
        photo::check(&whole, photo::MAX_PIXELS).unwrap();
        for length in (0..whole.len() - 1).step_by(7) {
            assert!(
                photo::check(&whole[..length], photo::MAX_PIXELS).is_err(),
                "{length} of {}",
                whole.len()
            );
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
    for whole in [png(40, 30), jpeg(40, 30), progressive(40, 30)] {
        assert!(refusal(&whole[..whole.len() - 2]).contains("truncated"));
    }
}

#[test]
fn other_formats_are_named_with_a_remedy() {
    for (bytes, expected) in [
        (&b""[..], "an empty file"),
        (b"GIF89a\x01\x00", "a GIF file"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP file"),
        (b"BM\x00\x00", "a BMP file"),
        (b"II*\x00", "a TIFF file"),
        (b"MM\x00*", "a TIFF file"),
        (b"\x00\x00\x00\x20ftypavif", "an AVIF or HEIC file"),
        (b"<!DOCTYPE html>", "a web page; the download failed"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (&[0; 64], "zeros; the copy was cut"),
        (b"text", "neither"),
    ] {
        let message = refusal(bytes);
        assert!(message.contains("expected PNG or JPEG") && message.contains(expected), "{message}");
    }
}

#[test]
fn bombs_are_refused_by_their_header_and_the_limit_can_be_raised() {
    for side in [10_000, 50_000, u32::MAX >> 1] {
        let message = refusal(&bomb(side));
        assert!(message.contains("--max-pixels") || message.contains("header"), "{message}");
    }
    let mut huge = jpeg(16, 16);
    let frame = huge.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0x27, 0x10, 0x27, 0x10]); // 10,000 x 10,000
    assert!(refusal(&huge).contains("10000 x 10000 pixels"));
    let large = png(300, 200);
    assert!(photo::check(&large, 59_999).unwrap_err().contains("300 x 200"));
    assert!(photo::check(&large, 60_000).is_ok());
    let mut empty = jpeg(16, 16);
    empty[frame + 5..frame + 7].copy_from_slice(&[0, 0]);
    assert!(refusal(&empty).contains("expected at least one"));
}

#[test]
fn unusual_images_are_good_and_remarked_on() {
    let remarks = |bytes: &[u8], path: &str| photo::check(bytes, photo::MAX_PIXELS).unwrap().remarks(path);
    assert!(remarks(&jpeg(8, 8), "a.JPG").is_empty() && remarks(&png(8, 8), "a.png").is_empty());
    assert_eq!(remarks(&jpeg(8, 8), "a.png"), ["it is a JPEG file named `.png`"]);
    assert_eq!(remarks(&png(8, 8), "a.jpeg"), ["it is a PNG file named `.jpeg`"]);
    assert_eq!(remarks(&cmyk(), "a.jpg"), ["its colours are CMYK"]);
    let deep =
        image::ImageBuffer::<image::Luma<u16>, _>::from_fn(8, 8, |x, _| image::Luma([x as u16 * 5000]));
    assert_eq!(remarks(&encoded(deep, ImageFormat::Png), "a.png"), ["its samples have 16 bits"]);
    assert_eq!(remarks(&animated(), "a.png"), ["it is animated; the first frame is used"]);
}

#[test]
fn mutated_images_never_panic() {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize
    };
    let (mut refused, mut tried) = (0, 0);
    for whole in [png(24, 20), jpeg(24, 20), progressive(24, 20), cmyk(), animated()] {
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            tried += 1;
            refused += usize::from(photo::check(&bytes, 1 << 20).is_err());
        }
    }
    assert_eq!(tried, 1000);
    assert!(refused > 200, "{refused}");
}

#[test]
fn photographs_are_made_smaller_and_small_or_deep_ones_kept() {
    let side = |bytes: &[u8]| {
        let header = photo::check(bytes, photo::MAX_PIXELS).unwrap();
        (header.width, header.height)
    };
    let shrink = |bytes: &[u8], format| {
        let header = photo::Header::read(bytes, photo::MAX_PIXELS).unwrap();
        stored::shrink(bytes, &header, &StoredSize { shorter_side: 32, format }).unwrap()
    };
    for format in [StoredFormat::Jpeg { quality: 95 }, StoredFormat::Png] {
        let small = shrink(&jpeg(100, 64), format).unwrap();
        assert_eq!(side(&small), (50, 32));
        assert_eq!(Some(small), shrink(&jpeg(100, 64), format), "not the same bytes twice");
        assert_eq!(shrink(&jpeg(100, 32), format), None);
        let deep =
            image::ImageBuffer::<image::Luma<u16>, _>::from_fn(80, 80, |x, _| image::Luma([x as u16 * 500]));
        assert_eq!(shrink(&encoded(deep, ImageFormat::Png), format), None);
    }
    let mut cut = jpeg(100, 64);
    cut.truncate(cut.len() / 2);
    let header = photo::Header::read(&cut, photo::MAX_PIXELS).unwrap();
    let stored = StoredSize { shorter_side: 32, format: StoredFormat::Png };
    assert!(stored::shrink(&cut, &header, &stored).unwrap_err().contains("truncated"));
}
