//! Selection of the samples that CLIP finds most like their class (CaFo, arXiv 2303.02151, section 3.2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use artifacts::LatentRow;
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use clip_model::{Checkpoint, Clip, DecodedImage, Preprocess, Tokenizer, normalize};
use pipeline_spec::spec::SelectionSpec;

use crate::{Error, Settings, model};

/// CLIP with the texts of the classes.
pub struct Selector<'a> {
    spec: &'a SelectionSpec,
    clip: Clip,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    context_length: usize,
    device: &'a burn::tensor::Device,
    /// Normalised text features `[1, P]` of the classes met so far.
    texts: BTreeMap<u32, Tensor<2>>,
}

impl<'a> Selector<'a> {
    /// Loads CLIP, whose digest must be the one pinned.
    pub fn open(spec: &'a SelectionSpec, settings: &Settings<'a>) -> Result<Self, Error> {
        let folder: PathBuf = model::folder(&spec.clip, settings)?;
        let checkpoint = Checkpoint::open(&folder, None)?;
        Ok(Self {
            spec,
            clip: checkpoint.load(settings.device)?.valid(),
            preprocess: checkpoint.preprocess().clone(),
            tokenizer: Tokenizer::from_folder(&folder)?,
            context_length: checkpoint.config().text_config.max_position_embeddings,
            device: settings.device,
            texts: BTreeMap::new(),
        })
    }

    /// Of each class, the `keep_per_class` samples of the highest score, in the order of `rows`; the first of equals. The
    /// rows of a class stand together.
    pub fn select(&mut self, mut rows: Vec<LatentRow>) -> Result<Vec<LatentRow>, Error> {
        for row in &mut rows {
            row.clip_score = Some(self.score(row)?);
        }
        let keep = self.spec.keep_per_class;
        let mut kept = Vec::new();
        for class in rows.chunk_by(|a, b| a.class_id == b.class_id) {
            if class.len() < keep as usize {
                let (class_name, found) = (class[0].class_name.clone(), class.len());
                return Err(Error::TooFewSamples { class_name, expected: keep, found });
            }
            let score = |index: &usize| class[*index].clip_score.unwrap_or(f32::MIN);
            let mut order: Vec<usize> = (0..class.len()).collect();
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            order.truncate(keep as usize);
            order.sort_unstable();
            kept.extend(order.into_iter().map(|index| class[index].clone()));
        }
        Ok(kept)
    }

    /// Cosine similarity of the image and the text of its class. One image at a time: it takes a small share of the time,
    /// and so no other sample can change the last digit of a score.
    fn score(&mut self, row: &LatentRow) -> Result<f32, Error> {
        let text = self.text(row)?;
        let image = DecodedImage::from_bytes(&row.image_png, Path::new(&row.image_path))?;
        let pixel_values = self.preprocess.pixel_values(&[image.into_rgb()], self.device);
        let image = normalize(self.clip.image_features(pixel_values)); // [1, P]
        let score = (image * text).sum().into_scalar::<f32>();
        if !score.is_finite() {
            let sample = format!("image `{}`", row.image_path);
            return Err(Error::BadSample { sample, problem: format!("has the CLIP score {score}") });
        }
        Ok(score)
    }

    /// Text features of the class of `row`.
    fn text(&mut self, row: &LatentRow) -> Result<Tensor<2>, Error> {
        if let Some(features) = self.texts.get(&row.class_id) {
            return Ok(features.clone());
        }
        let text = self.spec.template.replace("{}", &row.class_name);
        let ids = self.tokenizer.encode_batch(&[text], self.context_length, false)?.concat();
        let ids = TensorData::new(ids, [1, self.context_length]);
        let ids = Tensor::<2, Int>::from_data(ids, self.device);
        let features = normalize(self.clip.text_features(ids));
        self.texts.insert(row.class_id, features.clone());
        Ok(features)
    }
}
