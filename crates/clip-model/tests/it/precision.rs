//! Towers that compute in bf16 and f16.

use burn::tensor::{FloatDType, Tensor};
use clip_model::{Checkpoint, normalize};

use crate::golden::{Golden, device, max_difference, path};

/// Embeddings (unit norm, elements to 0.5) and logits (to 15) of a golden model in a precision, beside f32 and PyTorch's own.
struct Measured {
    /// Largest difference to f32: of embeddings, of logits.
    ours: [f32; 2],
    /// The same of PyTorch.
    theirs: [f32; 2],
    /// Between both.
    between: [f32; 2],
}

fn measure(model: &str, dtype: FloatDType, name: &str) -> Measured {
    let exact = Golden::open(&format!("checkpoints/{model}/expected.safetensors"));
    let low = Golden::open(&format!("checkpoints/{model}/low_precision.safetensors"));
    let folder = path("checkpoints").join(model);
    let clip = Checkpoint::open(&folder, None).unwrap().load_as(&device(), dtype).unwrap();
    assert_eq!(FloatDType::from(clip.logit_scale.val().dtype()), dtype);
    let image = clip.image_features(exact.tensor("pixel_values", &device()));
    let text = clip.text_features(exact.ids("input_ids", &device()));
    assert_eq!(FloatDType::from(image.dtype()), FloatDType::F32, "features are f32");
    let logits = clip.logits_per_image(image.clone(), text.clone());
    let mut measured = Measured { ours: [0.0; 2], theirs: [0.0; 2], between: [0.0; 2] };
    for (key, output, at) in
        [("image_embeds", normalize(image), 0), ("text_embeds", normalize(text), 0), ("logits", logits, 1)]
    {
        let ours = output.into_data().try_into_vec::<f32>().unwrap();
        let (exact, theirs) = (exact.floats(key), low.floats(&format!("{key}.{name}")));
        let worst = |sum: &mut f32, left: &[f32], right: &[f32]| *sum = sum.max(max_difference(left, right));
        worst(&mut measured.ours[at], &ours, &exact);
        worst(&mut measured.theirs[at], &theirs, &exact);
        worst(&mut measured.between[at], &ours, &theirs);
    }
    for (at, what) in ["embeddings", "logits"].into_iter().enumerate() {
        let Measured { ours, theirs, between } = &measured;
        eprintln!(
            "{model} {name} {what}: {:.1e} from f32, PyTorch's {:.1e}; {:.1e} between",
            ours[at], theirs[at], between[at]
        );
    }
    measured
}

#[test]
fn low_precision_towers_stay_as_near_to_f32_as_pytorchs() {
    // A rounding to bf16 moves a number by up to 2^-9 of itself, one to f16 by 2^-12.
    for (dtype, name, rounding) in
        [(FloatDType::BF16, "bf16", 2.0_f32.powi(-9)), (FloatDType::F16, "f16", 2.0_f32.powi(-12))]
    {
        for model in ["vit", "resnet"] {
            let Measured { ours, theirs, between } = measure(model, dtype, name);
            // Logits are embeddings times a factor of 14.3.
            for (at, scale) in [(0, 1.0), (1, 14.3)] {
                let bound = 8.0 * rounding * scale;
                assert!(ours[at] > 0.0, "{model} {name} computes in f32");
                assert!(ours[at] <= bound, "{model} {name}: {} beyond {bound}", ours[at]);
                assert!(ours[at] <= 2.0 * theirs[at], "{model} {name}: {} beside {}", ours[at], theirs[at]);
                assert!(between[at] <= 2.0 * bound, "{model} {name}: {} beyond {bound}", between[at]);
            }
        }
    }
}

#[test]
fn low_precision_vision_transformers_take_images_of_another_size() {
    let golden = Golden::open("checkpoints/vit/expected.safetensors");
    let folder = path("checkpoints").join("vit");
    let embeds = |dtype: FloatDType| {
        let clip = Checkpoint::open(&folder, None).unwrap().load_as(&device(), dtype).unwrap();
        let pixel_values = golden.tensor::<4>("pixel_values", &device());
        let tall = Tensor::cat(vec![pixel_values.clone(), pixel_values], 2);
        normalize(clip.image_features(tall)).into_data().try_into_vec::<f32>().unwrap()
    };
    let exact = embeds(FloatDType::F32);
    for (dtype, rounding) in [(FloatDType::BF16, 2.0_f32.powi(-9)), (FloatDType::F16, 2.0_f32.powi(-12))] {
        let difference = max_difference(&embeds(dtype), &exact);
        assert!(difference > 0.0 && difference <= 8.0 * rounding, "{dtype:?}: {difference}");
    }
}
