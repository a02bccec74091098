//! Whole Stable Diffusion folders against diffusers' `StableDiffusionPipeline`.
//!
//! Guidance 7.5 multiplies the differences of two f32 networks in each of four steps; the latents of this case reach 16, so
//! 1e-4 is about one part in 10^5.

use burn::tensor::{Tensor, TensorData};
use clip_model::SaveDtype;
use sd_model::{
    Error, SampleRequest, Scheduler, SchedulerClass, SchedulerConfig, StableDiffusion, Step, TimestepSpacing,
    noise, to_rgb_images,
};
use std::path::Path;

use crate::golden::{Golden, assert_close, distance, path};

const TOLERANCE: f32 = 1e-4;
const NUM_INFERENCE_STEPS: usize = 4;

fn texts(texts: [&str; 2]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn embeds(model: &StableDiffusion) -> [Tensor<3>; 2] {
    let prompts = texts(["a photo of a cat", "two dogs, painted"]);
    let negative = texts(["", "blurry"]);
    [prompts, negative].map(|texts| model.encode_prompts(&texts).unwrap())
}

#[allow(clippy::print_stderr)]
fn pipeline_case(name: &str, guidance_scale: f64) {
    let device = backend::test_device();
    let golden = Golden::open(&format!("{name}/golden.safetensors"), &device);
    let model = StableDiffusion::from_folder(&path(name), &device).unwrap();
    let what = |part: &str| format!("{name} {part}");
    assert_eq!(model.latent_shape(), [4, 8, 8]);

    let [prompt, negative] = embeds(&model);
    assert_close(&what("prompt_embeds"), prompt.clone(), golden.tensor("prompt_embeds"), TOLERANCE);
    if guidance_scale != 1.0 {
        assert_close(&what("negative_embeds"), negative.clone(), golden.tensor("negative_embeds"), TOLERANCE);
    }
    let noise = golden.tensor("noise");
    let latents = model.sample(prompt, negative, noise, NUM_INFERENCE_STEPS, guidance_scale).unwrap();
    assert_close(&what("latents"), latents.clone(), golden.tensor("latents"), TOLERANCE);

    let images = model.decode(latents);
    assert_close(&what("images"), images.clone(), golden.tensor("images"), TOLERANCE);
    let found = to_rgb_images(images);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [16 * 16 * 3; 2]);
    let expected = golden.bytes("rgb");
    let differ = found.concat().iter().zip(&expected).filter(|(a, b)| a != b).count();
    eprintln!("{name}: {differ} of {} bytes differ", expected.len());
    let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
    // A value within 1e-4 of a half may round to the other side: at most one byte in a hundred, by one.
    assert!(differ * 100 <= expected.len() && found.concat().iter().zip(&expected).all(near));
}

#[test]
fn four_guided_steps_match_diffusers() {
    pipeline_case("pipeline_sd1", 7.5);
}

#[test]
fn four_steps_of_v_prediction_without_guidance_match_diffusers() {
    pipeline_case("pipeline_sd2", 1.0);
}

#[test]
#[allow(clippy::print_stderr)]
fn a_sample_does_not_depend_on_its_batch() {
    let device = backend::test_device();
    let model = StableDiffusion::from_folder(&path("pipeline_sd1"), &device).unwrap();
    let shape = model.latent_shape();
    let prompts: Vec<String> = (0..5).map(|i| format!("a photo of {i} cats")).collect();
    let run = |range: std::ops::Range<usize>| {
        let prompt = model.encode_prompts(&prompts[range.clone()]).unwrap();
        let negative = model.encode_prompts(&vec![String::new(); range.len()]).unwrap();
        let values: Vec<f32> = range.clone().flat_map(|i| noise(42, 0, i as u32, 0, shape)).collect();
        let data = TensorData::new(values, [range.len(), shape[0], shape[1], shape[2]]);
        model.sample(prompt, negative, Tensor::from_data(data, &device), 4, 7.5).unwrap()
    };
    let whole = run(0..5);
    let ones = Tensor::cat((0..5).map(|i| run(i..i + 1)).collect(), 0);
    let twos = Tensor::cat(vec![run(0..2), run(2..4), run(4..5)], 0);
    let largest = whole.clone().abs().max().into_scalar::<f32>();
    let (ones, twos) = (distance(ones, whole.clone()), distance(twos, whole));
    eprintln!("batches of 1: {ones:.2e}, of 2: {twos:.2e} from a batch of 5 (largest value {largest:.1})");
    // The order of sums in a matrix product may depend on its number of rows; guidance magnifies the rounding.
    assert!(ones <= 1e-4 && twos <= 1e-4);
}

/// A request without noise in the steps.
fn request([prompt_embeds, negative_embeds]: [Tensor<3>; 2], noise: Tensor<4>) -> SampleRequest<'static> {
    SampleRequest {
        prompt_embeds,
        negative_embeds,
        noise,
        num_inference_steps: 3,
        guidance_scale: 7.5,
        guidance_rescale: 0.0,
        step_noise: None,
    }
}

#[test]
fn every_step_is_told_with_its_latents() {
    let device = backend::test_device();
    let model = StableDiffusion::from_folder(&path("pipeline_sd2"), &device).unwrap();
    let start = Tensor::ones([2, 4, 8, 8], &device);
    let mut seen = vec![];
    let mut last = None;
    let mut on_step = |step: &Step| {
        seen.push((step.index, step.next_timestep));
        last = Some(step.latents.clone());
    };
    let latents = model.draw(request(embeds(&model), start), &mut on_step).unwrap();
    let timesteps = model.scheduler.start(3).unwrap().timesteps().to_vec();
    assert_eq!(seen, [(0, Some(timesteps[1])), (1, Some(timesteps[2])), (2, None)]);
    assert_eq!(distance(last.unwrap(), latents), 0.0);
}

#[test]
fn other_samplers_and_rescaled_guidance_match_diffusers() {
    let device = backend::test_device();
    let golden = Golden::open("pipeline_sd1/golden.safetensors", &device);
    let expected = Golden::open("sampling.safetensors", &device);
    let noise = || golden.tensor::<4>("noise");
    let step_noise = |_: usize| noise().flip([0]);
    let file = StableDiffusion::from_folder(&path("pipeline_sd1"), &device).unwrap();
    let check = |name: &str, class: SchedulerClass, config: SchedulerConfig, guidance_rescale: f64| {
        let mut model = StableDiffusion::from_folder(&path("pipeline_sd1"), &device).unwrap();
        model.scheduler = Scheduler::new(class, config).unwrap();
        let request = request(embeds(&model), noise());
        let request = SampleRequest { guidance_rescale, step_noise: Some(&step_noise), ..request };
        let latents = model.draw(request, &mut |_| {}).unwrap();
        let expected = expected.tensor::<4>(name);
        let size = expected.clone().abs().max().into_scalar::<f32>().max(1.0);
        assert_close(name, latents, expected, TOLERANCE * size);
    };
    let config = || file.scheduler.config().clone();
    for rescale in [0.0, 0.5, 1.0] {
        check(&format!("guidance_rescale {rescale:.1}"), SchedulerClass::Ddim, config(), rescale);
    }
    for class in [
        SchedulerClass::Pndm,
        SchedulerClass::Euler,
        SchedulerClass::EulerAncestral,
        SchedulerClass::DpmSolverMultistep,
        SchedulerClass::Lcm,
    ] {
        // The file names the spacing, so all of them keep it.
        check(class.name(), class, config(), 0.0);
    }
    let karras = SchedulerConfig { use_karras_sigmas: Some(true), ..config() };
    check("karras", SchedulerClass::DpmSolverMultistep, karras, 0.0);
    let trailing = SchedulerConfig { timestep_spacing: Some(TimestepSpacing::Trailing), ..config() };
    check("trailing", SchedulerClass::Euler, trailing, 0.0);
}

#[test]
fn a_sampler_that_adds_noise_asks_for_it() {
    let device = backend::test_device();
    let mut model = StableDiffusion::from_folder(&path("pipeline_sd1"), &device).unwrap();
    model.scheduler = model.scheduler.with_class(SchedulerClass::EulerAncestral).unwrap();
    let zeros = || Tensor::<4>::zeros([2, 4, 8, 8], &device);
    let error = model.draw(request(embeds(&model), zeros()), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("`EulerAncestralDiscreteScheduler`") && error.contains("`step_noise`"), "{error}");
    let asked = std::cell::RefCell::new(vec![]);
    let step_noise = |index: usize| {
        asked.borrow_mut().push(index);
        zeros()
    };
    let request = SampleRequest { step_noise: Some(&step_noise), ..request(embeds(&model), zeros()) };
    model.draw(request, &mut |_| {}).unwrap();
    // The last step leads to no noise.
    assert_eq!(*asked.borrow(), [0, 1]);
}

#[test]
fn wrong_requests_are_errors() {
    let device = backend::test_device();
    let model = StableDiffusion::from_folder(&path("pipeline_sd2"), &device).unwrap();
    let [prompt, negative] = embeds(&model);
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let run = |negative: Tensor<3>, noise: Tensor<4>, steps: usize| {
        model.sample(prompt.clone(), negative, noise, steps, 7.5).unwrap_err().to_string()
    };
    let error = run(negative.clone(), zeros([2, 3, 8, 8]), 4);
    assert_eq!(error, "`noise` has the wrong shape: expected [B, 4, H, W], found [2, 3, 8, 8]");
    let error = run(negative.clone(), zeros([3, 4, 8, 8]), 4);
    assert!(error.starts_with("`prompt_embeds` has the wrong shape"), "{error}");
    let error = run(negative.clone().narrow(1, 0, 5), zeros([2, 4, 8, 8]), 4);
    assert!(error.starts_with("`negative_embeds` has the wrong shape"), "{error}");
    let error = run(negative, zeros([2, 4, 8, 8]), 0);
    assert!(error.starts_with("`num_inference_steps` is `0`: expected 1 to"), "{error}");
    assert!(matches!(model.encode_prompts(&[]), Err(Error::NoPrompt)));
}

#[test]
fn bytes_are_in_the_order_height_width_channels() {
    let device = backend::test_device();
    let pixels = [0.0, 0.5 / 255.0, 1.5 / 255.0, 1.0, 0.2, 0.4].map(|v: f32| v);
    let image = Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), [1, 3, 1, 2]), &device);
    assert_eq!(to_rgb_images(image), [[0, 2, 51, 0, 255, 102]]);
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_saved_folder_loads_again_and_samples_the_same() {
    let device = backend::test_device();
    for name in ["pipeline_sd1", "pipeline_sd2"] {
        let folder = tempfile::tempdir().unwrap();
        let model = StableDiffusion::from_folder(&path(name), &device).unwrap();
        model.save_to_folder(folder.path(), SaveDtype::F32).unwrap();
        let again = StableDiffusion::from_folder(folder.path(), &device).unwrap();
        let run = |model: &StableDiffusion| {
            let [prompt, negative] = embeds(model);
            let golden = Golden::open(&format!("{name}/golden.safetensors"), &device);
            model.sample(prompt, negative, golden.tensor("noise"), 2, 3.0).unwrap()
        };
        assert_eq!(distance(run(&model), run(&again)), 0.0);
        assert_eq!(again.tokenizer.pad_token_id(), model.tokenizer.pad_token_id());
        let settings =
            std::fs::read_to_string(folder.path().join("tokenizer/tokenizer_config.json")).unwrap();
        assert!(settings.contains("\"model_max_length\": 77"), "diffusers needs it: {settings}");

        // Half precision rounds each parameter to 11 bits.
        model.save_to_folder(folder.path(), SaveDtype::F16).unwrap();
        let half = StableDiffusion::from_folder(folder.path(), &device).unwrap();
        let distance = distance(run(&model), run(&half));
        assert!(distance > 0.0 && distance < 0.1, "{distance}");
    }
}

#[test]
fn a_broken_folder_names_the_file() {
    let device = backend::test_device();
    let files = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    for file in files {
        let folder = tempfile::tempdir().unwrap();
        copy(&path("pipeline_sd1"), folder.path());
        let broken = folder.path().join(file);
        std::fs::remove_file(&broken).unwrap();
        let error = StableDiffusion::from_folder(folder.path(), &device).unwrap_err().to_string();
        // A tokenizer may have other files instead: its error names the folder and all of them.
        let (parent, name) =
            (broken.parent().unwrap().display().to_string(), file.rsplit('/').next().unwrap());
        assert!(error.contains(&parent) && error.contains(name), "{file} missing: {error}");
        if file == "tokenizer/merges.txt" {
            continue; // one word on a line is checked by the tokenizer's own tests
        }
        std::fs::write(&broken, "{").unwrap();
        let error = StableDiffusion::from_folder(folder.path(), &device).unwrap_err().to_string();
        assert!(error.contains(&broken.display().to_string()), "{file} damaged: {error}");
    }
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    let device = backend::test_device();
    let cases = [
        (
            "unet/config.json",
            "\"cross_attention_dim\": 8",
            "\"cross_attention_dim\": 9",
            "cross_attention_dim",
        ),
        ("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 9", "in_channels"),
        ("text_encoder/config.json", "\"vocab_size\": 521", "\"vocab_size\": 520", "vocab_size"),
        ("model_index.json", "StableDiffusionPipeline", "StableDiffusionXLPipeline", "_class_name"),
    ];
    for (file, from, to, field) in cases {
        let folder = tempfile::tempdir().unwrap();
        copy(&path("pipeline_sd1"), folder.path());
        let changed = folder.path().join(file);
        let text = std::fs::read_to_string(&changed).unwrap();
        assert!(text.contains(from), "{file}");
        std::fs::write(&changed, text.replace(from, to)).unwrap();
        let error = StableDiffusion::from_folder(folder.path(), &device).unwrap_err().to_string();
        assert!(error.contains(&format!("{file}`: field `{field}`: expected")), "{error}");
    }
}
