//! Reading and writing the weight files of the networks, under the names of diffusers and transformers.

use burn::tensor::FloatDType;
use clip_model::{KeyTable, SaveDtype, TensorFile, TextTransformer, save_safetensors};
use std::path::Path;

use crate::{AutoencoderKl, AutoencoderTiny, Error, UNet2DCondition};

/// Weight files of a diffusers component, without extension.
pub(crate) const DIFFUSERS_WEIGHTS: [&str; 2] = ["diffusion_pytorch_model", "diffusion_pytorch_model"];
/// Weight files of a transformers component, without extension: safetensors and torch.
pub(crate) const TRANSFORMERS_WEIGHTS: [&str; 2] = ["model", "pytorch_model"];

/// Opens the weights of the component in `folder`: full before half precision, safetensors before torch files, one file
/// before shards.
pub(crate) fn open_weights(folder: &Path, [safetensors, torch]: [&str; 2]) -> Result<TensorFile, Error> {
    let names = |variant: &str| {
        let files = [(safetensors, "safetensors"), (torch, "bin")];
        files.map(|(stem, extension)| {
            // A variant stands before the extension of a file and before that of an index.
            [format!("{stem}{variant}.{extension}"), format!("{stem}.{extension}.index{variant}.json")]
        })
    };
    let names: Vec<String> = ["", ".fp16"].into_iter().flat_map(names).flatten().collect();
    let Some(name) = names.iter().find(|name| folder.join(name).is_file()) else {
        return Err(clip_model::Error::NoWeights { path: folder.to_owned(), names }.into());
    };
    Ok(TensorFile::open(&folder.join(name))?)
}

impl UNet2DCondition {
    /// Fills the network from `diffusion_pytorch_model.safetensors`, a torch file or an index of shards; f16 and bf16 files
    /// load as f32.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one in name and shape.
    pub fn load(self, path: &Path) -> Result<Self, Error> {
        self.load_file(&TensorFile::open(path)?)
    }

    pub(crate) fn load_file(self, file: &TensorFile) -> Result<Self, Error> {
        Ok(file.load(self, &KeyTable::new(), FloatDType::F32)?)
    }

    /// Writes the parameters under the names of diffusers.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written or a parameter does not fit `dtype`.
    pub fn save(&self, path: &Path, dtype: SaveDtype) -> Result<(), Error> {
        Ok(save_safetensors(self, path, dtype, &KeyTable::new())?)
    }
}

impl AutoencoderKl {
    /// Fills the network from `diffusion_pytorch_model.safetensors`, a torch file or an index of shards; f16 and bf16 files
    /// load as f32.
    ///
    /// Files older than diffusers 0.18, Stable Diffusion's own among them, name the attention layers `query`, `key`,
    /// `value` and `proj_attn`; they load too.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one in name and shape.
    pub fn load(self, path: &Path) -> Result<Self, Error> {
        self.load_file(&TensorFile::open(path)?)
    }

    pub(crate) fn load_file(self, file: &TensorFile) -> Result<Self, Error> {
        let is_old = file.shapes().any(|(name, _)| name.contains(".proj_attn."));
        let table = if is_old { old_attention_names() } else { KeyTable::new() };
        Ok(file.load(self, &table, FloatDType::F32)?)
    }

    /// Writes the parameters under the present names of diffusers.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written or a parameter does not fit `dtype`.
    pub fn save(&self, path: &Path, dtype: SaveDtype) -> Result<(), Error> {
        Ok(save_safetensors(self, path, dtype, &KeyTable::new())?)
    }
}

impl AutoencoderTiny {
    /// Fills the network from `diffusion_pytorch_model.safetensors` or a torch file; f16 and bf16 files load as f32.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one in name and shape.
    pub fn load(self, path: &Path) -> Result<Self, Error> {
        Ok(TensorFile::open(path)?.load(self, &KeyTable::new(), FloatDType::F32)?)
    }
}

fn old_attention_names() -> KeyTable {
    KeyTable::new()
        .with_rule("to_q", "query")
        .with_rule("to_k", "key")
        .with_rule("to_v", "value")
        .with_rule("to_out.0", "proj_attn")
}

/// The prefix of a text encoder's tensor names, in every file that is not written by transformers 5.
const TEXT_PREFIX: &str = "text_model";

/// Fills a text encoder from `model.safetensors`, whether or not its names begin with `text_model.`.
pub(crate) fn load_text_encoder(
    text_encoder: TextTransformer,
    file: &TensorFile,
) -> Result<TextTransformer, Error> {
    let has_prefix = file.shapes().any(|(name, _)| name.starts_with("text_model."));
    // Old files hold the numbers 0, 1, 2, ... as a buffer.
    let table = KeyTable::new().with_allowed_extra("position_ids");
    let table = if has_prefix { table.with_prefix(TEXT_PREFIX) } else { table };
    Ok(file.load(text_encoder, &table, FloatDType::F32)?)
}

/// Writes a text encoder with the prefix, which every version of transformers reads.
pub(crate) fn save_text_encoder(
    text_encoder: &TextTransformer,
    path: &Path,
    dtype: SaveDtype,
) -> Result<(), Error> {
    Ok(save_safetensors(text_encoder, path, dtype, &KeyTable::new().with_prefix(TEXT_PREFIX))?)
}
