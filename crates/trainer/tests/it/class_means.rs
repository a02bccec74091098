//! The classifier of class means, against means taken here image by image.

use clip_model::{Preprocess, VisionConfig};
use flier_model::Pool;
use image::{Rgb, RgbImage};
use pipeline_spec::spec::Augment;
use trainer::backbone::to_vec;
use trainer::fine_tune::batch::Views;
use trainer::fine_tune::with_class_means;
use trainer::images::LabeledImage;

use crate::accumulate::tiny_model;
use crate::fixture::{device, small_vit};

const CLASSES: usize = 3;
const LOGIT_SCALE: f64 = 20.0;

/// Two or three images of a class, in mixed order.
fn shots() -> Vec<LabeledImage> {
    let image = |index: usize| {
        let label = (index * 2) % CLASSES;
        let pixel = |x: u32, y: u32| {
            let value = (x as usize * (label + 1) * 11 + y as usize * 7 + index * 13) % 256;
            Rgb([value as u8, (255 - value) as u8, (80 * label) as u8])
        };
        LabeledImage { sample_id: index.to_string(), label, image: RgbImage::from_fn(16, 16, pixel) }
    };
    (0..8).map(image).collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn logits_start_as_scaled_cosines_to_the_class_means() {
    let (shots, preprocess) = (shots(), Preprocess::new(16));
    let shots: Vec<&LabeledImage> = shots.iter().collect();
    let views = Views::new(&shots, &preprocess, Augment::None, 1);
    for pool in [Pool::Projected, Pool::MeanPatch] {
        let model = with_class_means(
            tiny_model(VisionConfig::VisionTransformer(small_vit()), pool),
            &views,
            LOGIT_SCALE,
            &device(),
        )
        .unwrap();
        let of = |index: usize| views.pixel_values(&[index], None, &device());
        let features: Vec<Vec<f64>> = (0..shots.len())
            .map(|index| to_vec(model.image_features(of(index))).unwrap())
            .map(|feature| feature.into_iter().map(f64::from).collect())
            .collect();
        let mean_length = features.iter().map(|f| length(f)).sum::<f64>() / features.len() as f64;
        if pool == Pool::Projected {
            assert!((mean_length - 1.0).abs() < 1e-6, "{mean_length}");
        }
        for (index, feature) in features.iter().enumerate() {
            let logits = to_vec(model.image_logits(of(index))).unwrap();
            for (class, logit) in logits.into_iter().enumerate() {
                let own: Vec<_> = features.iter().zip(&shots).filter(|(_, s)| s.label == class).collect();
                let mean: Vec<f64> = (0..feature.len())
                    .map(|i| own.iter().map(|(f, _)| f[i]).sum::<f64>() / own.len() as f64)
                    .collect();
                let dot: f64 = mean.iter().zip(feature).map(|(m, f)| m * f).sum();
                let expected = LOGIT_SCALE * dot / length(&mean) / mean_length;
                // Sums of some tens of f32 products.
                assert!((f64::from(logit) - expected).abs() < 1e-4, "{pool:?} {class}: {logit} {expected}");
            }
        }
    }
}
