//! Images to pixel values as OpenAI's CLIP prepares them: shorter side resized with Pillow's bicubic, centre crop, scaling,
//! normalisation.
//!
//! The crop's offset is torchvision's `round((size - crop) / 2)`, half to even, as in OpenAI's code and open_clip. After the
//! resize no side is shorter than the crop, so torchvision's padding of small images never happens here.
//! Only the part of the resized image that the crop shows is computed, so a long strip takes no more memory than a square.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;
use crate::config::{read_json, write_json};
use crate::decode::DecodedImage;
use crate::resample::{Target, resize};

/// Mean of OpenAI's training images per channel.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of OpenAI's training images per channel.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// File name in the Hugging Face folder layout.
const FILE: &str = "preprocessor_config.json";
/// Pillow's number for bicubic.
const BICUBIC: u32 = 3;

/// How an image becomes the input of a vision tower; the `preprocessor_config.json` of a CLIP.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Side of the square output in pixels.
    pub image_size: usize,
    /// Subtracted per channel after scaling to [0, 1].
    pub mean: [f32; 3],
    /// Divides per channel.
    pub std: [f32; 3],
}

/// `crop_size` and `size` as transformers has written them over the years.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Side {
    Number(usize),
    Shortest { shortest_edge: usize },
    Square { height: usize, width: usize },
}

#[derive(Deserialize)]
struct OnDisk {
    size: Side,
    crop_size: Option<Side>,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    resample: Option<u32>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    rescale_factor: Option<f64>,
}

impl Side {
    fn pixels<E: serde::de::Error>(self, field: &str) -> Result<usize, E> {
        match self {
            Side::Number(side) | Side::Shortest { shortest_edge: side } => Ok(side),
            Side::Square { height, width } if height == width => Ok(height),
            Side::Square { height, width } => {
                Err(E::custom(format!("`{field}` is {height} x {width}, expected a square")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Preprocess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let on_disk = OnDisk::deserialize(deserializer)?;
        let image_size = on_disk.size.pixels::<D::Error>("size")?;
        if let Some(crop) = on_disk.crop_size {
            let crop = crop.pixels::<D::Error>("crop_size")?;
            if crop != image_size {
                return Err(D::Error::custom(format!(
                    "`crop_size` is {crop}, expected `size` = {image_size}"
                )));
            }
        }
        if image_size == 0 {
            return Err(D::Error::custom("`size` is 0, expected a positive number"));
        }
        if let Some(resample) = on_disk.resample
            && resample != BICUBIC
        {
            return Err(D::Error::custom(format!("`resample` is {resample}, expected {BICUBIC} (bicubic)")));
        }
        for (field, step) in [
            ("do_resize", on_disk.do_resize),
            ("do_center_crop", on_disk.do_center_crop),
            ("do_rescale", on_disk.do_rescale),
            ("do_normalize", on_disk.do_normalize),
        ] {
            if step == Some(false) {
                return Err(D::Error::custom(format!(
                    "`{field}` is false, expected true: CLIP needs every step"
                )));
            }
        }
        if let Some(factor) = on_disk.rescale_factor
            && (factor - 1.0 / 255.0).abs() > 1e-9
        {
            return Err(D::Error::custom(format!("`rescale_factor` is {factor}, expected 1/255")));
        }
        if on_disk.image_std.iter().any(|std| !(std.is_finite() && *std > 0.0)) {
            return Err(D::Error::custom("`image_std` holds a value that is not positive"));
        }
        if on_disk.image_mean.iter().any(|mean| !mean.is_finite()) {
            return Err(D::Error::custom("`image_mean` holds a value that is not finite"));
        }
        Ok(Preprocess { image_size, mean: on_disk.image_mean, std: on_disk.image_std })
    }
}

impl Serialize for Preprocess {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": { "shortest_edge": self.image_size },
            "resample": BICUBIC,
            "do_center_crop": true,
            "crop_size": { "height": self.image_size, "width": self.image_size },
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": self.mean,
            "image_std": self.std,
        })
        .serialize(serializer)
    }
}

impl Preprocess {
    /// OpenAI's mean and standard deviation at this size.
    pub fn new(image_size: usize) -> Self {
        Preprocess { image_size, mean: CLIP_MEAN, std: CLIP_STD }
    }

    /// Reads `preprocessor_config.json` from a folder.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, misses a field or asks for another resize, crop or scaling than CLIP's.
    pub fn from_folder(dir: &Path) -> Result<Self, Error> {
        read_json(&dir.join(FILE), "image preprocessing of a CLIP model")
    }

    /// Writes `preprocessor_config.json` into a folder.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        write_json(&dir.join(FILE), &serde_json::json!(self))
    }

    /// Resizes the shorter side to `image_size` and crops the centre of an RGB image.
    ///
    /// This is the order of CoOp's data loader (Dassl) and of transformers: colours are converted before the resize.
    ///
    /// # Panics
    ///
    /// Panics if the image has no pixels.
    pub fn square(&self, image: &RgbImage) -> RgbImage {
        let target = self.target(image.width(), image.height());
        let samples = resize::<3>(image.as_raw(), image.dimensions(), &target);
        let side = self.side();
        RgbImage::from_raw(side, side, samples).expect("the target is a square of this side")
    }

    /// Resizes, crops and only then converts the colours: the order of openai/CLIP and open_clip.
    ///
    /// It differs from [`Preprocess::square`] for images with alpha (multiplied in before the resize), with a palette or one
    /// bit per pixel (nearest pixels, as Pillow does), CMYK and 16-bit grey; it is the same for RGB and 8-bit grey.
    pub fn square_of(&self, image: &DecodedImage) -> RgbImage {
        image.resize(&self.target(image.width(), image.height())).into_rgb()
    }

    /// The centre square of the resized image.
    fn target(&self, width: u32, height: u32) -> Target {
        assert!(width > 0 && height > 0, "the image has no pixels");
        let side = self.side();
        // torchvision truncates the longer side. A strip can become longer than 32 bits count.
        let long = |long: u32, short: u32| {
            u32::try_from(u64::from(side) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX)
        };
        let size = if width <= height { (side, long(height, width)) } else { (long(width, height), side) };
        let (left, top) = (half_to_even(size.0 - side), half_to_even(size.1 - side));
        Target { size, columns: left..left + side, rows: top..top + side }
    }

    fn side(&self) -> u32 {
        u32::try_from(self.image_size).expect("the size of an image fits 32 bits")
    }

    /// Writes the pixel values `[3, S, S]` of a square image of side S: scaled to [0, 1], minus mean, over std.
    ///
    /// # Panics
    ///
    /// Panics if `values` does not hold one number per sample.
    pub fn write_pixel_values(&self, square: &RgbImage, values: &mut [f32]) {
        let samples = square.as_raw();
        assert_eq!(values.len(), samples.len(), "one value is written per sample");
        let plane = samples.len() / 3;
        for (channel, values) in values.chunks_exact_mut(plane.max(1)).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            // A sample has 256 values: dividing each once is exact and far cheaper than dividing every sample.
            let table: [f32; 256] = std::array::from_fn(|sample| (sample as f32 / 255.0 - mean) / std);
            for (value, pixel) in values.iter_mut().zip(samples.as_chunks::<3>().0) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }

    /// Pixel values of a batch, `[B, 3, image_size, image_size]`.
    ///
    /// # Panics
    ///
    /// Panics if an image has no pixels.
    pub fn pixel_values(&self, images: &[RgbImage], device: &Device) -> Tensor<4> {
        self.stack(images.iter().map(|image| self.square(image)), device)
    }

    /// Pixel values of a batch in the order of openai/CLIP, `[B, 3, image_size, image_size]`; see [`Preprocess::square_of`].
    pub fn pixel_values_of(&self, images: &[DecodedImage], device: &Device) -> Tensor<4> {
        self.stack(images.iter().map(|image| self.square_of(image)), device)
    }

    fn stack(&self, squares: impl ExactSizeIterator<Item = RgbImage>, device: &Device) -> Tensor<4> {
        let size = self.image_size;
        let count = squares.len();
        let mut values = vec![0.0; count * 3 * size * size];
        for (square, values) in squares.zip(values.chunks_exact_mut(3 * size * size)) {
            self.write_pixel_values(&square, values);
        }
        Tensor::from_data(TensorData::new(values, [count, 3, size, size]), device)
    }
}

/// Half of a number, a half rounded to the even neighbour, as Python's `round`.
fn half_to_even(number: u32) -> u32 {
    let half = number / 2;
    half + u32::from(number % 2 == 1 && half % 2 == 1)
}
