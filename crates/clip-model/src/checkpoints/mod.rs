//! Published checkpoints: which there are, where they lie, and one loader for every layout they are published in.
//!
//! | layout | files | names of the tensors |
//! | --- | --- | --- |
//! | [`Layout::OpenAi`] | `RN50.pt`, ... (TorchScript) | OpenAI's, attention projections in one tensor, f16 |
//! | [`Layout::OpenClip`] | `open_clip_model.safetensors`, `.bin`, `.pt` | as OpenAI's; the text tower may stand below `text.` |
//! | [`Layout::Transformers`] | `model.safetensors`, `pytorch_model.bin` or their index, with `config.json` | Hugging Face's; this crate's own |
//!
//! [`Checkpoint::open`] tells file format and layout from the content, reads or infers the configuration and refuses every
//! tensor that is missing, left over or of another shape.

mod architectures;
mod files;
mod find;
mod infer;
mod layouts;
mod open_clip_config;
mod pretrained;

use std::path::Path;

use burn::tensor::{Device, FloatDType};

use crate::config::{Activation, ClipConfig, VisionConfig};
use crate::model::Clip;
use crate::preprocess::Preprocess;
use crate::weights::{Format, TensorFile, load_tensors};
use crate::{Error, KeyTable};

pub use architectures::{Backbone, Vision};
pub use find::{HubCache, OpenAiCache, Repository, find};
pub use layouts::Layout;
pub use pretrained::{Pretrained, Publisher, check_sha256};

use open_clip_config::OpenClipConfig;

/// An open checkpoint: its configuration is known, its tensors are not read yet.
pub struct Checkpoint {
    file: TensorFile,
    layout: Layout,
    config: ClipConfig,
    preprocess: Preprocess,
}

impl Checkpoint {
    /// Opens a weight file, or the one of a folder; the folder of a repository in the Hugging Face cache will do.
    ///
    /// Configuration and preprocessing come from the `config.json` and `preprocessor_config.json` or the
    /// `open_clip_config.json` beside the file; without them from the shapes of the tensors and, for a published file name,
    /// from the registry. `activation` is for state dicts where nothing beside tells it; OpenAI's own have QuickGELU.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is damaged, asks to run code, has no known layout or contradicts its configuration,
    /// and if nothing tells the activation or another one is told than `activation`.
    pub fn open(path: &Path, activation: Option<Activation>) -> Result<Self, Error> {
        let path = files::weight_file(path)?;
        let mut file = TensorFile::open(&path)?;
        // Wrappers of distributed training and of the compiler.
        for wrapper in ["module.", "_orig_mod."] {
            file.strip_prefix(wrapper);
        }
        file.check_total()?;
        if file.tensors.keys().any(|key| key.starts_with(layouts::CUSTOM_TEXT)) {
            file.lift_prefix(layouts::CUSTOM_TEXT)?;
        }
        let layout = Layout::of(&file)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let (config, preprocess) = match layout {
            Layout::Transformers => {
                let config = ClipConfig::from_file(&folder.join(files::CONFIG))?;
                let has_preprocess = folder.join(files::PREPROCESS).is_file();
                let preprocess = has_preprocess.then(|| Preprocess::from_folder(folder)).transpose()?;
                (config, preprocess)
            }
            Layout::OpenAi | Layout::OpenClip => open_clip(&file, layout, folder, activation)?,
        };
        let found = config.text_config.hidden_act;
        if let Some(given) = activation.filter(|&given| given != found) {
            return Err(Error::ActivationConflict { path: file.path().to_owned(), given, found });
        }
        let preprocess = preprocess.unwrap_or_else(|| Preprocess::new(image_size(&config)));
        Ok(Checkpoint { file, layout, config, preprocess })
    }

    /// How images become the input of the checkpoint in `folder`; a Hugging Face folder needs no weights for that.
    ///
    /// # Errors
    ///
    /// Fails as [`Checkpoint::open`], or if the folder's file is malformed.
    pub fn preprocess_of(folder: &Path) -> Result<Preprocess, Error> {
        if folder.join(files::PREPROCESS).is_file() {
            return Preprocess::from_folder(folder);
        }
        Ok(Self::open(folder, None)?.preprocess)
    }

    /// The weight file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The kind of file.
    pub fn format(&self) -> Format {
        self.file.format
    }

    /// The naming of its tensors.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The shape of the model.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// How images become its input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The published architecture of this shape.
    pub fn backbone(&self) -> Option<&'static Backbone> {
        Backbone::all().iter().find(|backbone| backbone.has_shape_of(&self.config))
    }

    /// The model; f16 and bf16 weights become f32.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one, and if the file turns out damaged.
    pub fn load(&self, device: &Device) -> Result<Clip, Error> {
        self.load_as(device, FloatDType::F32)
    }

    /// The model with towers that compute in `dtype`; every parameter is rounded to it. Pixel values and features stay f32.
    ///
    /// # Errors
    ///
    /// Fails as [`Checkpoint::load`].
    pub fn load_as(&self, device: &Device, dtype: FloatDType) -> Result<Clip, Error> {
        let clip = self.config.init(device);
        let table = self.layout.key_table(&clip);
        load_tensors(clip, &self.file, &table, dtype)
    }
}

impl Clip {
    /// How the parameters of this model are spelled in a layout.
    pub fn key_table_of(&self, layout: Layout) -> KeyTable {
        layout.key_table(self)
    }
}

fn image_size(config: &ClipConfig) -> usize {
    match &config.vision_config {
        VisionConfig::VisionTransformer(vision) => vision.image_size,
        VisionConfig::ModifiedResNet(vision) => vision.image_size,
    }
}

/// Configuration and preprocessing of a file with OpenAI's names.
fn open_clip(
    file: &TensorFile,
    layout: Layout,
    folder: &Path,
    activation: Option<Activation>,
) -> Result<(ClipConfig, Option<Preprocess>), Error> {
    let published = Pretrained::by_file_name(file.path());
    let beside = match layout {
        Layout::OpenClip => OpenClipConfig::beside(folder)?,
        _ => None,
    };
    let activation = match (layout, &beside, published) {
        (Layout::OpenAi, ..) => Activation::QuickGelu,
        (_, Some(beside), _) => beside.activation(),
        (_, None, published) => activation
            .or(published.map(|published| published.activation))
            .ok_or_else(|| Error::UnknownActivation { path: file.path().to_owned() })?,
    };
    let mut config = infer::config(file, activation)?;
    if let Some(beside) = &beside {
        beside.apply(&mut config)?;
    }
    config.check(file.path())?;
    if layout == Layout::OpenAi {
        infer::check_numbers(file, &config)?;
    }
    let size = image_size(&config);
    let preprocess = match (&beside, published) {
        (Some(beside), _) => Some(beside.preprocess(size)?),
        (None, Some(published)) => Some(published.preprocess(size)),
        (None, None) => None,
    };
    Ok((config, preprocess))
}
