//! The names of the latent diffusion code for the parameters of this crate's networks.

use clip_model::{KeyTable, TensorFile, TextConfig, TextTransformer};

use super::TextTower;
use crate::{AutoencoderKlConfig, DownBlockType, Error, UNet2DConditionConfig, UpBlockType};

pub(super) const UNET: &str = "model.diffusion_model";
pub(super) const AUTOENCODER: &str = "first_stage_model";
const CLIP: &str = "cond_stage_model.transformer";
const OPEN_CLIP: &str = "cond_stage_model.model";

/// The noise schedule that training kept beside the weights, by which nothing here is computed.
const SCHEDULE: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
];

impl TextTower {
    /// Tells the tower from the names.
    pub(super) fn of(file: &TensorFile) -> Result<Self, Error> {
        for (component, prefixes) in
            [("unet", &[UNET][..]), ("vae", &[AUTOENCODER]), ("text_encoder", &[CLIP, OPEN_CLIP])]
        {
            if !file.shapes().any(|(key, _)| is_below(key, prefixes)) {
                let names: Vec<String> = prefixes.iter().map(|prefix| format!("`{prefix}.*`")).collect();
                let expected = format!("tensors {}", names.join(" or "));
                return Err(Error::MissingComponent { path: file.path().to_owned(), component, expected });
            }
        }
        if file.shapes().any(|(key, _)| is_below(key, &[OPEN_CLIP])) {
            return Ok(TextTower::OpenClip);
        }
        let text_model = format!("{CLIP}.text_model");
        Ok(TextTower::Clip { has_text_model: file.shapes().any(|(key, _)| is_below(key, &[&text_model])) })
    }

    /// What stands before the names of the tower.
    pub(super) fn prefix(self) -> String {
        match self {
            TextTower::Clip { has_text_model: true } => format!("{CLIP}.text_model"),
            TextTower::Clip { has_text_model: false } => CLIP.to_owned(),
            TextTower::OpenClip => OPEN_CLIP.to_owned(),
        }
    }
}

fn is_below(key: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
}

/// Fails on tensors of no network, but for the noise schedule and the moving average of the weights.
pub(super) fn check_rest(file: &TensorFile) -> Result<(), Error> {
    let is_known = |key: &str| {
        is_below(key, &[UNET, AUTOENCODER, CLIP, OPEN_CLIP, "model_ema"]) || SCHEDULE.contains(&key)
    };
    let unread: Vec<&str> = file.shapes().map(|(key, _)| key).filter(|key| !is_known(key)).collect();
    match unread.first() {
        None => Ok(()),
        Some(&key) => {
            let (path, key, count) = (file.path().to_owned(), key.to_owned(), unread.len());
            Err(clip_model::Error::UnreadTensor { path, key, count }.into())
        }
    }
}

/// Layers of a residual block.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

fn with_resnet(table: KeyTable, module: &str, block: &str) -> KeyTable {
    let rule = |table: KeyTable, (ours, theirs)| {
        table.with_rule(&format!("{module}.{ours}"), &format!("{block}.{theirs}"))
    };
    RESNET.into_iter().fold(table, rule)
}

/// The blocks of the latent diffusion code are numbered through in the order of computation.
pub(super) fn unet(config: &UNet2DConditionConfig) -> KeyTable {
    let mut table = [
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ]
    .into_iter()
    .fold(KeyTable::new().with_prefix_in_shared_file(UNET), |table, (ours, theirs)| {
        table.with_rule(ours, theirs)
    });
    table = with_resnet(table, "mid_block.resnets.0", "middle_block.0");
    table = with_resnet(table, "mid_block.resnets.1", "middle_block.2");

    let mut number = 1; // `conv_in` is 0
    for (block, kind) in config.down_block_types.iter().enumerate() {
        for layer in 0..config.layers_per_block {
            let place = format!("input_blocks.{number}");
            table =
                with_resnet(table, &format!("down_blocks.{block}.resnets.{layer}"), &format!("{place}.0"));
            if *kind == DownBlockType::CrossAttnDownBlock2D {
                let ours = format!("down_blocks.{block}.attentions.{layer}");
                table = table.with_rule(&ours, &format!("{place}.1"));
            }
            number += 1;
        }
        let ours = format!("down_blocks.{block}.downsamplers.0.conv");
        table = table.with_rule(&ours, &format!("input_blocks.{number}.0.op"));
        number += 1;
    }
    let mut number = 0;
    for (block, kind) in config.up_block_types.iter().enumerate() {
        let attends = *kind == UpBlockType::CrossAttnUpBlock2D;
        for layer in 0..=config.layers_per_block {
            let place = format!("output_blocks.{number}");
            table = with_resnet(table, &format!("up_blocks.{block}.resnets.{layer}"), &format!("{place}.0"));
            if attends {
                let ours = format!("up_blocks.{block}.attentions.{layer}");
                table = table.with_rule(&ours, &format!("{place}.1"));
            }
            number += 1;
        }
        // In the block of the last layer, behind what is there.
        let (last, position) = (number - 1, if attends { 2 } else { 1 });
        let ours = format!("up_blocks.{block}.upsamplers.0.conv");
        table = table.with_rule(&ours, &format!("output_blocks.{last}.{position}.conv"));
    }
    table
}

/// Layers of the attention in the middle of encoder and decoder; in the file, all but the norm are 1x1 convolutions.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];

pub(super) fn autoencoder(config: &AutoencoderKlConfig) -> KeyTable {
    let mut table = KeyTable::new().with_prefix_in_shared_file(AUTOENCODER);
    for (ours, theirs) in ATTENTION {
        let (ours, theirs) = (format!("mid_block.attentions.0.{ours}"), format!("mid.attn_1.{theirs}"));
        table = table.with_rule(&ours, &theirs);
        if !theirs.ends_with("norm") {
            for half in ["encoder", "decoder"] {
                table = table.with_pointwise(&format!("{AUTOENCODER}.{half}.{theirs}.weight"));
            }
        }
    }
    // The latent diffusion code counts the stages of the decoder from the image's resolution, too.
    let last = config.block_out_channels.len() - 1;
    for stage in 0..=last {
        let (ours, theirs) = (format!("decoder.up_blocks.{stage}"), format!("decoder.up.{}", last - stage));
        table = table.with_rule(&ours, &theirs);
    }
    let rest = [
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("down_blocks", "down"),
        ("resnets", "block"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ];
    rest.into_iter().fold(table, |table, (ours, theirs)| table.with_rule(ours, theirs))
}

pub(super) fn text(tower: TextTower, config: &TextConfig) -> KeyTable {
    let prefix = tower.prefix();
    match tower {
        TextTower::Clip { .. } => {
            KeyTable::new().with_prefix_in_shared_file(&prefix).with_allowed_extra("position_ids")
        }
        TextTower::OpenClip => {
            let unused = format!("transformer.resblocks.{}", config.num_hidden_layers);
            let extras = [&unused, "text_projection", "logit_scale", "attn_mask"];
            let table = TextTransformer::open_clip_key_table().with_prefix_in_shared_file(&prefix);
            extras.into_iter().fold(table, |table, extra| table.with_allowed_extra(extra))
        }
    }
}
