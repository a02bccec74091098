//! Contrastive training of a CLIP.
//!
//! The loss is CLIP's (arXiv 2103.00020, figure 3) with several positives per row, as in UniCL (arXiv 2204.03610): each
//! distinct caption of the batch is encoded once, an image is pulled to every caption that is true of it, a caption to every
//! image that it is true of.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::collections::BTreeMap;
use std::path::Path;

use clip_model::{
    CLIP_MEAN, CLIP_STD, Clip, ClipConfig, Preprocess, SaveDtype, Tokenizer, VisionConfig, normalize,
    train_bpe,
};

use crate::augment::augment;
use crate::caption::{Caption, vocabulary_corpus};
use crate::error::Error;
use crate::images::ImageSet;
use crate::metrics::Metrics;
use crate::optimizer::adamw;
use crate::recipe::{ClipRecipe, Recipe};
use crate::rng::{Purpose, StepRng};
use crate::state::{RunId, StateDir, Training};

/// Where and how a training runs; nothing here can change the weights.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Device without autodiff.
    pub device: &'a Device,
    /// Its name.
    pub device_name: &'a str,
    /// Folder of the state.
    pub state: &'a Path,
    /// Steps between two saved states.
    pub save_every: usize,
    /// Steps between two lines of figures.
    pub log_every: usize,
    /// Stops after this many steps of the recipe, state saved; for tests and for cutting a training into pieces.
    pub stop_at: Option<usize>,
}

impl Run<'_> {
    pub(crate) fn last_step(&self, num_steps: usize) -> usize {
        self.stop_at.unwrap_or(num_steps).min(num_steps)
    }
}

/// A trained CLIP with its tokenizer.
#[derive(Debug)]
pub struct TrainedClip {
    /// Shape, special tokens filled in.
    pub config: ClipConfig,
    /// Inference copy.
    pub clip: Clip,
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Steps done.
    pub step: usize,
    /// Seconds spent.
    pub elapsed_s: f64,
}

/// Side of the input images in pixels.
pub fn image_side(config: &ClipConfig) -> usize {
    match &config.vision_config {
        VisionConfig::VisionTransformer(vision) => vision.image_size,
        VisionConfig::ModifiedResNet(vision) => vision.image_size,
    }
}

/// Trains, or continues training, by `recipe`.
///
/// # Errors
///
/// Fails if images and recipe do not fit, the state cannot be read or written, or the loss is not finite.
pub fn train(recipe: &ClipRecipe, images: &ImageSet, run: &Run<'_>) -> Result<TrainedClip, Error> {
    images.check_batches(&recipe.batch)?;
    let corpus = vocabulary_corpus(&images.images, &recipe.captions.templates);
    let tokenizer = train_bpe(&corpus, recipe.vocab_size);
    let mut config = recipe.model.clone();
    config.text_config.vocab_size = tokenizer.vocab_size();
    config.text_config.bos_token_id = tokenizer.bos_token_id();
    config.text_config.eos_token_id = tokenizer.eos_token_id();

    run.device.seed(recipe.seed);
    let fresh = Training {
        model: config.init(&run.device.clone().autodiff()),
        average: None,
        optimizer: adamw(&recipe.optimizer),
        step: 0,
        elapsed_s: 0.0,
    };
    let id = RunId {
        recipe: recipe.digest(),
        inputs: vec![images.origin.clone()],
        device: run.device_name.to_owned(),
    };
    let state = StateDir::open(run.state, id)?;
    let mut training = state.resume(fresh)?;
    let num_steps = recipe.optimizer.num_steps;
    let mut metrics =
        Metrics::open(state.dir(), training.step, training.elapsed_s, num_steps, run.log_every)?;
    while training.step < run.last_step(num_steps) {
        training = step(training, recipe, images, &tokenizer, run, &mut metrics)?;
        training.elapsed_s = metrics.elapsed_s();
        if training.step % run.save_every == 0 || training.step == run.last_step(num_steps) {
            state.save(&training)?;
        }
    }
    Ok(TrainedClip {
        config,
        clip: training.model.valid(),
        tokenizer,
        step: training.step,
        elapsed_s: training.elapsed_s,
    })
}

fn step(
    training: Training<Clip>,
    recipe: &ClipRecipe,
    images: &ImageSet,
    tokenizer: &Tokenizer,
    run: &Run<'_>,
    metrics: &mut Metrics,
) -> Result<Training<Clip>, Error> {
    let device = run.device.clone().autodiff();
    let Training { model, mut optimizer, step, .. } = training;
    let batch = Batch::draw(recipe, images, step as u64);
    let context_length = recipe.model.text_config.max_position_embeddings;
    let input_ids = token_ids(tokenizer, &batch.texts, context_length, &device)?;
    let side = images.side;
    let pixels = TensorData::new(batch.pixels, [batch.num_images, 3, side, side]);
    let pixel_values = clip_pixels(Tensor::from_data(pixels, &device));

    let image_features = normalize(model.image_features(pixel_values)); // [B, D]
    let text_features = normalize(model.text_features(input_ids)); // [U, D]
    let max = f64::from(recipe.max_logit_scale).ln();
    let scale = model.logit_scale.val().clamp_max(max).exp().unsqueeze::<2>();
    let logits = image_features.matmul(text_features.transpose()) * scale; // [B, U]
    let targets = Targets::new(&batch.fits, &device);
    let loss = contrastive_loss(logits, targets);

    let learning_rate = recipe.optimizer.learning_rate_at(step);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = optimizer.step(learning_rate, model, gradients);
    let logit_scale = model.logit_scale.val().exp().into_scalar::<f32>();
    let figures = [("loss", loss.into_scalar::<f32>()), ("logit_scale", logit_scale)];
    metrics.add(step + 1, &figures, learning_rate)?;
    Ok(Training { model, average: None, optimizer, step: step + 1, elapsed_s: 0.0 })
}

/// Images, distinct captions and which fit which.
struct Batch {
    num_images: usize,
    pixels: Vec<f32>,
    texts: Vec<String>,
    /// `fits[image][caption]`
    fits: Vec<Vec<bool>>,
}

impl Batch {
    fn draw(recipe: &ClipRecipe, images: &ImageSet, step: u64) -> Self {
        let mut rng = StepRng::new(recipe.seed, Purpose::Batch, step);
        let indices = images.draw_batch(&recipe.batch, &mut rng);
        let mut captions: BTreeMap<String, Caption> = BTreeMap::new();
        for &index in &indices {
            let caption = Caption::draw(&images.images[index], &recipe.captions, &mut rng);
            captions.insert(caption.text.clone(), caption);
        }
        let captions: Vec<Caption> = captions.into_values().collect();
        let fits_of = |&index: &usize| captions.iter().map(|c| c.fits(&images.images[index])).collect();
        let fits: Vec<Vec<bool>> = indices.iter().map(fits_of).collect();
        let mut rng = StepRng::new(recipe.seed, Purpose::Augment, step);
        let pixels = indices
            .iter()
            .flat_map(|&index| augment(&images.images[index].pixels, images.side, &recipe.augment, &mut rng))
            .collect();
        Self {
            num_images: indices.len(),
            pixels,
            texts: captions.into_iter().map(|caption| caption.text).collect(),
            fits,
        }
    }
}

/// Probabilities that the two softmaxes are compared with.
struct Targets {
    /// `[B, U]`, rows sum to 1
    per_image: Tensor<2>,
    /// `[U, B]`, rows sum to 1
    per_text: Tensor<2>,
}

impl Targets {
    fn new(fits: &[Vec<bool>], device: &Device) -> Self {
        let num_texts = fits.first().map_or(0, Vec::len);
        let transposed: Vec<Vec<bool>> =
            (0..num_texts).map(|text| fits.iter().map(|row| row[text]).collect()).collect();
        let tensor = |rows: &[Vec<bool>], width: usize| {
            let share = |row: &Vec<bool>| {
                let count = row.iter().filter(|&&fit| fit).count().max(1) as f32;
                row.iter().map(move |&fit| f32::from(u8::from(fit)) / count).collect::<Vec<f32>>()
            };
            let values: Vec<f32> = rows.iter().flat_map(share).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows.len(), width]), device)
        };
        Self { per_image: tensor(fits, num_texts), per_text: tensor(&transposed, fits.len()) }
    }
}

/// Mean of the two cross-entropies, `[1]`.
fn contrastive_loss(logits: Tensor<2>, targets: Targets) -> Tensor<1> {
    let cross_entropy = |logits: Tensor<2>, targets: Tensor<2>| {
        let rows = logits.dims()[0] as f64;
        (log_softmax(logits, 1) * targets).sum() / -rows
    };
    let per_image = cross_entropy(logits.clone(), targets.per_image);
    let per_text = cross_entropy(logits.transpose(), targets.per_text);
    (per_image + per_text) * 0.5
}

/// Normalises pixels `[B, 3, S, S]` in 0..=1 as CLIP wants them.
pub fn clip_pixels(pixels: Tensor<4>) -> Tensor<4> {
    let device = pixels.device();
    let constant = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device).reshape([1, 3, 1, 1]);
    (pixels - constant(CLIP_MEAN)) / constant(CLIP_STD)
}

/// Token ids of texts, `[B, T]`; a longer text is cut.
///
/// # Errors
///
/// Fails if the tokenizer refuses the context length.
pub fn token_ids(
    tokenizer: &Tokenizer,
    texts: &[String],
    context_length: usize,
    device: &Device,
) -> Result<Tensor<2, Int>, Error> {
    let ids: Vec<i64> = tokenizer.encode_batch(texts, context_length, true)?.concat();
    Ok(Tensor::from_data(TensorData::new(ids, [texts.len(), context_length]), device))
}

impl TrainedClip {
    /// Writes the Hugging Face folder: `config.json`, `model.safetensors`, `preprocessor_config.json`, tokenizer files.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or a weight does not fit `dtype`.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<(), Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        self.clip.save_to_folder(&self.config, dir, dtype)?;
        Preprocess::new(image_side(&self.config)).save(dir)?;
        Ok(self.tokenizer.save_to_folder(dir)?)
    }
}
