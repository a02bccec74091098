//! Facts about training on the default back end.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use clip_model::{SaveDtype, VisionConfig};
use pretrain::clip::Run;
use pretrain::{AutoencoderRecipe, ClipRecipe, Error, UnetRecipe, autoencoder, clip, unet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fixtures::{images, recipe};

fn device() -> Device {
    backend::DeviceSpec::Cpu.open().unwrap()
}

/// One training at a time: the generator that draws initial weights is the device's, and tests may share a process.
fn alone() -> MutexGuard<'static, ()> {
    static DEVICE: Mutex<()> = Mutex::new(());
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run<'a>(device: &'a Device, state: &'a Path, stop_at: Option<usize>) -> Run<'a> {
    Run { device, device_name: "cpu", state, save_every: 100, log_every: 1, stop_at }
}

fn clip_recipe(vision: &str) -> ClipRecipe {
    let mut recipe: ClipRecipe = recipe(vision);
    recipe.vocab_size = 540;
    recipe.batch.size = 6;
    recipe.optimizer.num_steps = 3;
    recipe.optimizer.warmup_steps = 1;
    recipe.model.projection_dim = 16;
    let text = &mut recipe.model.text_config;
    (text.hidden_size, text.intermediate_size, text.num_hidden_layers) = (16, 32, 1);
    (text.num_attention_heads, text.max_position_embeddings) = (2, 12);
    match &mut recipe.model.vision_config {
        VisionConfig::VisionTransformer(vision) => {
            (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) = (16, 32, 1);
            (vision.num_attention_heads, vision.image_size) = (2, 32);
        }
        VisionConfig::ModifiedResNet(vision) => {
            (vision.width, vision.heads, vision.image_size) = (2, 2, 32);
        }
    }
    recipe
}

fn autoencoder_recipe() -> AutoencoderRecipe {
    let mut recipe: AutoencoderRecipe = recipe("emoji-sd-autoencoder.toml");
    recipe.batch_size = 2;
    recipe.model.block_out_channels = vec![4, 4, 8];
    recipe.model.norm_num_groups = 2;
    recipe.model.sample_size = 32;
    recipe.optimizer.num_steps = 3;
    recipe.optimizer.warmup_steps = 1;
    recipe
}

fn unet_recipe() -> UnetRecipe {
    let mut recipe: UnetRecipe = recipe("emoji-sd-unet.toml");
    recipe.batch.size = 4;
    recipe.copies = 1;
    recipe.model.sample_size = 8;
    recipe.model.block_out_channels = vec![8, 8];
    recipe.model.norm_num_groups = 2;
    recipe.model.cross_attention_dim = 16;
    recipe.optimizer.num_steps = 3;
    recipe.optimizer.warmup_steps = 1;
    recipe
}

/// All float parameters of a module, in order.
fn weights<M: Module>(module: &M) -> Vec<f32> {
    struct Collect(Vec<f32>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut collect = Collect(Vec::new());
    module.visit(&mut collect);
    assert!(!collect.0.is_empty() && collect.0.iter().all(|value| value.is_finite()));
    collect.0
}

/// Trains without and with an interruption after two steps; gives both weights.
fn undisturbed_and_resumed(train: impl Fn(&Run<'_>) -> Vec<f32>) -> [Vec<f32>; 2] {
    let _alone = alone();
    let device = device();
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = train(&run(&device, dirs[0].path(), None));
    let halfway = train(&run(&device, dirs[1].path(), Some(2)));
    assert_ne!(halfway, undisturbed, "the third step changes the weights");
    [undisturbed, train(&run(&device, dirs[1].path(), None))]
}

#[test]
fn a_resumed_clip_has_the_same_weights_to_the_bit() {
    for name in ["emoji-clip-vit.toml", "emoji-clip-resnet.toml"] {
        let (recipe, images) = (clip_recipe(name), images(32));
        let [a, b] =
            undisturbed_and_resumed(|run| weights(&clip::train(&recipe, &images, run).unwrap().clip));
        let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a == b, "{name}: {differing} of {} weights differ, by up to {largest}", a.len());
    }
}

#[test]
fn a_resumed_autoencoder_has_the_same_weights_to_the_bit() {
    let (recipe, images) = (autoencoder_recipe(), images(32));
    let [a, b] =
        undisturbed_and_resumed(|run| weights(&autoencoder::train(&recipe, &images, run).unwrap().vae));
    assert!(a == b);
}

#[test]
fn a_resumed_unet_has_the_same_weights_to_the_bit_and_the_saved_model_samples() {
    let (images, device) = (images(32), device());
    let dir = tempfile::tempdir().unwrap();
    let state = |name: &str| dir.path().join(name);
    let (clip_dir, sd_dir) = (dir.path().join("clip"), dir.path().join("sd"));
    let alone_for_frozen = alone();
    let clip_state = state("clip-state");
    let clip =
        clip::train(&clip_recipe("emoji-clip-vit.toml"), &images, &run(&device, &clip_state, None)).unwrap();
    clip.save(&clip_dir, SaveDtype::F16).unwrap();
    let vae_state = state("vae-state");
    let vae = autoencoder::train(&autoencoder_recipe(), &images, &run(&device, &vae_state, None)).unwrap();
    assert!(vae.config.scaling_factor > 0.0);
    vae.save(&sd_dir, SaveDtype::F16).unwrap();
    drop(alone_for_frozen);

    let train = |run: &Run<'_>| {
        let frozen = unet::Frozen::load(&clip_dir, &sd_dir, run.device).unwrap();
        let trained = unet::train(&unet_recipe(), &images, frozen, run).unwrap();
        trained.save(&sd_dir, SaveDtype::F16).unwrap();
        weights(&trained.model.unet)
    };
    let [a, b] = undisturbed_and_resumed(train);
    assert!(a == b);

    let model = sd_model::StableDiffusion::from_folder(&sd_dir, &device).unwrap();
    let embeds = model.encode_prompts(&["an emoji of a red thing".to_owned()]).unwrap();
    let noise = Tensor::zeros([1, 4, 8, 8], &device);
    let latents = model.sample(embeds.clone(), embeds, noise, 2, 2.0).unwrap();
    assert_eq!(model.decode(latents).dims(), [1, 3, 32, 32]);
}

#[test]
fn a_state_of_another_recipe_is_refused() {
    let (images, device) = (images(32), device());
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = autoencoder_recipe();
    autoencoder::train(&recipe, &images, &run(&device, dir.path(), Some(1))).unwrap();
    recipe.seed += 1;
    let error = autoencoder::train(&recipe, &images, &run(&device, dir.path(), None)).unwrap_err();
    assert!(matches!(error, Error::OtherRun { field: "recipe", .. }), "{error}");
}

#[test]
fn an_image_of_another_size_is_refused_by_name() {
    let mut set = images(32);
    let rows = vec![artifacts::ImageRow {
        sample_id: "odd".to_owned(),
        split: "base".to_owned(),
        label: None,
        class_name: None,
        caption: None,
        source: "test".to_owned(),
        image: artifacts::ImageFile {
            bytes: {
                let mut bytes = std::io::Cursor::new(Vec::new());
                image::RgbImage::new(5, 7).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
                bytes.into_inner()
            },
            path: "odd.png".to_owned(),
        },
    }];
    let names = std::mem::take(&mut set.class_names);
    let error = pretrain::ImageSet::from_rows(rows, "base", "fixtures", 32, names).unwrap_err();
    assert_eq!(error.to_string(), "image `odd`: expected 32 x 32 pixels, found 5 x 7");
}
