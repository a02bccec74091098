//! Reading and writing the weight files of a diffusers folder.

use clip_model::{KeyTable, SaveDtype, TextTransformer, load_safetensors, save_safetensors};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{AutoencoderKl, Error, UNet2DCondition};

impl UNet2DCondition {
    /// Fills the network from `diffusion_pytorch_model.safetensors`; f16 and bf16 files load as f32.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one in name and shape.
    pub fn load(self, path: &Path) -> Result<Self, Error> {
        Ok(load_safetensors(self, path, &KeyTable::new())?)
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
    /// Fills the network from `diffusion_pytorch_model.safetensors`; f16 and bf16 files load as f32.
    ///
    /// Files older than diffusers 0.18, Stable Diffusion's own among them, name the attention layers `query`, `key`,
    /// `value` and `proj_attn`; they load too.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one in name and shape.
    pub fn load(self, path: &Path) -> Result<Self, Error> {
        let is_old = names_any(path, |name| name.contains(".proj_attn."))?;
        let table = if is_old { old_attention_names() } else { KeyTable::new() };
        Ok(load_safetensors(self, path, &table)?)
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
    path: &Path,
) -> Result<TextTransformer, Error> {
    let has_prefix = names_any(path, |name| name.starts_with("text_model."))?;
    // Old files hold the numbers 0, 1, 2, ... as a buffer.
    let table = KeyTable::new().with_allowed_extra("position_ids");
    let table = if has_prefix { table.with_prefix(TEXT_PREFIX) } else { table };
    Ok(load_safetensors(text_encoder, path, &table)?)
}

/// Writes a text encoder with the prefix, which every version of transformers reads.
pub(crate) fn save_text_encoder(
    text_encoder: &TextTransformer,
    path: &Path,
    dtype: SaveDtype,
) -> Result<(), Error> {
    Ok(save_safetensors(text_encoder, path, dtype, &KeyTable::new().with_prefix(TEXT_PREFIX))?)
}

/// Whether a tensor name of a safetensors file satisfies `predicate`; reads only the header.
///
/// A damaged header has no names here: loading reads it again and says what is wrong with it.
fn names_any(path: &Path, predicate: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let io = |e| Error::io(path, e);
    let file = File::open(path).map_err(io)?;
    let total = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    if (&file).read_exact(&mut length).is_err() || u64::from_le_bytes(length) > total {
        return Ok(false);
    }
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(io)?;
    let header = serde_json::from_slice::<Map<String, Value>>(&header).unwrap_or_default();
    Ok(header.keys().any(|name| predicate(name)))
}
