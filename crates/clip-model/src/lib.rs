//! CLIP: text tower, vision transformer and modified ResNet, tokenizer, image preprocessing, checkpoint files.
//!
//! Field names of the modules equal the keys of Hugging Face's `CLIPModel` (and open_clip's `visual.` keys for the
//! ResNet), so the module tree is the weight map; [`KeyTable`] holds what Rust cannot spell.
//! [`Checkpoint`] reads every layout in which CLIP is published. Nothing here downloads, walks folders or names a back end.

mod checkpoints;
pub mod config;
mod decode;
pub mod encoder;
mod error;
mod html_entities;
pub mod low_rank;
mod model;
pub mod preprocess;
mod resample;
mod resample_kernels;
mod resnet;
mod text;
mod text_cleaning;
mod tokenizer;
mod tokenizer_files;
mod tokenizer_training;
mod vision_transformer;
mod weights;

pub use checkpoints::{
    Backbone, Checkpoint, HubCache, Layout, OpenAiCache, Pretrained, Publisher, Repository, Vision,
    check_sha256, find,
};
pub use config::{
    Activation, ClipConfig, ModifiedResNetConfig, TextConfig, VisionConfig, VisionTransformerConfig,
};
pub use decode::{DecodedImage, MAX_IMAGE_PIXELS, jpeg_decoder};
pub use error::Error;
pub use model::{Clip, VisionTower, normalize};
pub use preprocess::{CLIP_MEAN, CLIP_STD, Preprocess};
pub use resample::resize_bicubic;
pub use resnet::{AttentionPool, Bottleneck, Downsample, ModifiedResNet};
pub use text::{TextEmbeddings, TextOutput, TextTransformer};
pub use text_cleaning::Cleaning;
pub use tokenizer::Tokenizer;
pub use tokenizer_training::train_bpe;
pub use vision_transformer::{VisionEmbeddings, VisionTransformer};
pub use weights::{
    ArchiveError, Format, KeyTable, PickleError, SaveDtype, TensorFile, expected_keys, key_list,
    load_safetensors, save_safetensors, shard_names,
};
