//! The layouts of CLIP's tensors and how each spells the parameters.

use crate::model::{Clip, VisionTower};
use crate::text::TextTransformer;
use crate::weights::TensorFile;
use crate::{Error, KeyTable};

/// How the tensors of a checkpoint are named and cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// OpenAI's TorchScript files and their state dicts: open_clip's names and three numbers beside.
    OpenAi,
    /// open_clip: query, key and value in one tensor, projections as bare matrices.
    OpenClip,
    /// transformers' `CLIPModel`; a modified ResNet stands below `visual.` as in open_clip.
    Transformers,
}

/// Keys of a text tower that open_clip spells otherwise.
const OPEN_CLIP_TEXT_NAMES: &[(&str, &str)] = &[
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("encoder.layers", "transformer.resblocks"),
    ("final_layer_norm", "ln_final"),
];

/// Keys of the rest of a CLIP that open_clip spells otherwise.
const OPEN_CLIP_NAMES: &[(&str, &str)] = &[
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "visual.proj"),
    ("vision.embeddings.class_embedding", "visual.class_embedding"),
    ("vision.embeddings.patch_embedding", "visual.conv1"),
    ("vision.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision.pre_layrnorm", "visual.ln_pre"),
    ("vision.post_layernorm", "visual.ln_post"),
    ("vision.encoder.layers", "visual.transformer.resblocks"),
    ("vision", "visual"),
    ("downsample.conv", "downsample.0"),
    ("downsample.bn", "downsample.1"),
];

/// Keys within a layer of either tower that open_clip spells otherwise.
const OPEN_CLIP_LAYER_NAMES: &[(&str, &str)] = &[
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

/// Prefix of the text tower in open_clip's `CustomTextCLIP`, which is CLIP otherwise.
pub(super) const CUSTOM_TEXT: &str = "text.";

/// Tensors that no parameter reads: the causal mask of old files and, in ResNets, counters of training steps.
const OPEN_CLIP_EXTRAS: &[&str] = &["attn_mask", "num_batches_tracked"];

/// Numbers that OpenAI's files hold as tensors, in the order of [`super::infer::check_numbers`].
pub(super) const OPENAI_NUMBERS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

impl Layout {
    /// Tells the layout from the keys.
    pub(super) fn of(file: &TensorFile) -> Result<Self, Error> {
        let has = |prefix: &str| file.tensors.keys().any(|key| key.starts_with(prefix));
        if has("text_model.") {
            return Ok(Layout::Transformers);
        }
        if has("transformer.resblocks.") {
            // TorchScript alone does not tell: open_clip writes it too, without the numbers.
            let is_openai = file.tensors.contains_key(OPENAI_NUMBERS[0]);
            return Ok(if is_openai { Layout::OpenAi } else { Layout::OpenClip });
        }
        Err(Error::UnknownLayout {
            path: file.path().to_owned(),
            count: file.tensors.len(),
            first: file.tensors.keys().take(3).cloned().collect(),
        })
    }

    /// How the parameters of a model are spelled.
    pub(super) fn key_table(self, clip: &Clip) -> KeyTable {
        if self == Layout::Transformers {
            return clip.key_table();
        }
        let text = OPEN_CLIP_TEXT_NAMES
            .iter()
            .map(|(module, checkpoint)| (format!("text_model.{module}"), *checkpoint));
        let table = text.fold(KeyTable::new(), |table, (module, key)| table.with_rule(&module, key));
        let mut table = with_layer_names(with_rules(table, OPEN_CLIP_NAMES))
            .with_scalar("logit_scale")
            .with_untransposed("text_projection");
        if matches!(clip.vision, VisionTower::VisionTransformer(_)) {
            table = table.with_untransposed("visual.proj");
        }
        let numbers: &[&str] = if self == Layout::OpenAi { &OPENAI_NUMBERS } else { &[] };
        let extras = OPEN_CLIP_EXTRAS.iter().chain(numbers);
        extras.fold(table, |table, extra| table.with_allowed_extra(extra))
    }
}

impl TextTransformer {
    /// How a text tower without a CLIP around it is spelled in open_clip, as in Stable Diffusion 2's single files.
    ///
    /// Their tower has one layer more than is used, the projection and the scale of a whole CLIP: tensors that
    /// [`KeyTable::with_allowed_extra`] has to allow.
    pub fn open_clip_key_table() -> KeyTable {
        with_layer_names(with_rules(KeyTable::new(), OPEN_CLIP_TEXT_NAMES))
    }
}

fn with_rules(table: KeyTable, names: &[(&str, &str)]) -> KeyTable {
    names.iter().fold(table, |table, (module, checkpoint)| table.with_rule(module, checkpoint))
}

/// The names within a layer, with query, key and value in one tensor.
fn with_layer_names(table: KeyTable) -> KeyTable {
    ["weight", "bias"].into_iter().fold(with_rules(table, OPEN_CLIP_LAYER_NAMES), |table, parameter| {
        let parts = ["q", "k", "v"].map(|name| format!("self_attn.{name}_proj.{parameter}"));
        table.with_stack(&parts.each_ref().map(String::as_str), &format!("attn.in_proj_{parameter}"))
    })
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::OpenAi => "OpenAI",
            Layout::OpenClip => "open_clip",
            Layout::Transformers => "transformers",
        })
    }
}
