//! The words of a model card.

use std::fmt::Write as _;
use std::path::Path;

use super::{ClipFigures, Figures, Request, Share, TrainingSummary};
use crate::error::Error;

/// Heading of the part of a card that people write; it is kept when the rest is written anew.
const LIMITS: &str = "\n## Limits\n";

/// Writes the three cards and their figures; keeps what stands under `## Limits` in a card that is replaced.
pub(super) fn write_all(
    request: &Request<'_>,
    figures: &Figures,
    class_names: &[String],
) -> Result<(), Error> {
    for (dir, own) in [(request.clip_vit, &figures.vit), (request.clip_resnet, &figures.resnet)] {
        let summary = TrainingSummary::load("pretrain clip", dir)?;
        write_files(dir, &clip_card(&summary, own, figures, request, class_names), figures)?;
    }
    let summaries = [
        TrainingSummary::load("pretrain autoencoder", request.diffusion)?,
        TrainingSummary::load("pretrain unet", request.diffusion)?,
    ];
    write_files(request.diffusion, &diffusion_card(&summaries, figures, request), figures)
}

fn write_files(dir: &Path, card: &str, figures: &Figures) -> Result<(), Error> {
    write_keeping_limits(&dir.join("README.md"), card)?;
    let path = dir.join("evaluation.json");
    std::fs::write(&path, format!("{:#}\n", serde_json::json!(figures))).map_err(Error::io(&path))
}

fn write_keeping_limits(path: &Path, card: &str) -> Result<(), Error> {
    let limits = match std::fs::read_to_string(path) {
        Ok(old) => old.find(LIMITS).map(|at| old[at..].to_owned()).unwrap_or_default(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::io(path)(error)),
    };
    std::fs::write(path, format!("{card}{limits}")).map_err(Error::io(path))
}

fn percent(share: Share) -> String {
    let [low, high] = share.interval();
    format!("{:.1} % ({:.1} to {:.1})", 100.0 * share.value(), 100.0 * low, 100.0 * high)
}

fn clip_card(
    summary: &TrainingSummary,
    own: &ClipFigures,
    figures: &Figures,
    request: &Request<'_>,
    class_names: &[String],
) -> String {
    let name = summary.recipe["name"].as_str().unwrap_or("CLIP");
    let chance = 100.0 / figures.num_classes as f64;
    let mut card = format!(
        "# {name}\n\nA small CLIP for the quick start, trained from nothing on drawings of emoji by `{}`. It is a stand-in \
         of the same architecture, not OpenAI's CLIP: it knows emoji and little else.\n\n## Zero-shot accuracy\n\n\
         Prompt `{}`, {} classes, chance {chance:.1} %. Test emoji occur in no training image.\n\n\
         | images | n | accuracy (95 % interval, Wilson) | times chance |\n|---|---|---|---|\n",
        summary.command, request.template, figures.num_classes
    );
    let mut row = |what: &str, share: Share| {
        let times = 100.0 * share.value() / chance;
        let _ = writeln!(card, "| {what} | {} | {} | {times:.1} |", share.trials, percent(share));
    };
    row("`test`", own.test);
    if let Some(shift) = own.shift {
        row("`shift` (an artist who is not in the training images)", shift);
    }
    let _ = write!(card, "\nClasses: {}.\n\n", class_names.join(", "));
    card + &training_section("Training", summary)
}

fn diffusion_card(summaries: &[TrainingSummary; 2], figures: &Figures, request: &Request<'_>) -> String {
    let [vae, unet] = summaries;
    let name = unet.recipe["name"].as_str().unwrap_or("text-to-image model");
    let mut card = format!(
        "# {name}\n\nA small latent diffusion model for the quick start, trained from nothing on drawings of emoji: a KL \
         autoencoder (`pretrain autoencoder`), a text-conditioned UNet (`pretrain unet`), and as text encoder a frozen copy \
         of the text tower of the CLIP with the vision transformer. The layout is diffusers'. It is a stand-in of the same \
         architecture, not Stable Diffusion.\n\n![samples](samples.png)\n\nOne row per class, prompt `{}`, {} DDIM steps, \
         guidance {}, seed {}.\n\n## Recognisable images\n\nHow often a CLIP predicts the class of the prompt, and of a \
         real test image:\n\n| judge | generated (95 % interval) | n | real `test` images | ratio |\n|---|---|---|---|---|\n",
        request.template, request.num_inference_steps, request.guidance_scale, request.seed
    );
    for (judge, own) in [("vision transformer", &figures.vit), ("ResNet", &figures.resnet)] {
        let ratio = own.generated.value() / own.test.value().max(f64::MIN_POSITIVE);
        let (generated, real) = (percent(own.generated), percent(own.test));
        let _ = writeln!(card, "| {judge} | {generated} | {} | {real} | {ratio:.2} |", own.generated.trials);
    }
    let _ = write!(
        card,
        "\nThe text encoder was trained with the vision transformer; the ResNet is the more independent judge.\n\n\
         ## Autoencoder\n\nMean absolute error on test images: {:.4} of the whole range. Test images above, \
         reconstructions below:\n\n![reconstructions](reconstructions.png)\n\n",
        figures.reconstruction_error
    );
    card + &training_section("Training of the autoencoder", vae)
        + "\n"
        + &training_section("Training of the UNet", unet)
}

fn training_section(title: &str, summary: &TrainingSummary) -> String {
    let mut text = format!(
        "## {title}\n\n- Data: {} images ({} with a class) of split `{}` in `{}`; no image of `train`, `val`, `test` or \
         `shift`.\n- {} parameters, kept in f16.\n- {} steps in {:.1} min on `{}` (wall time on a shared machine of 2 cores).\n\n\
         | step | loss | further figures | min |\n|---|---|---|---|\n",
        summary.num_images,
        summary.num_labelled,
        summary.recipe["split"].as_str().unwrap_or_default(),
        summary.images,
        summary.num_params,
        summary.steps,
        summary.elapsed_s / 60.0,
        summary.device,
    );
    for line in &summary.losses {
        let extra: Vec<String> =
            line.extra.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let (step, loss, minutes) = (line.step, line.loss, line.elapsed_s / 60.0);
        let _ = writeln!(text, "| {step} | {loss:.4} | {} | {minutes:.1} |", extra.join(", "));
    }
    let _ = write!(text, "\nRecipe:\n\n```json\n{:#}\n```\n", summary.recipe);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewritten_card_keeps_its_limits() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("README.md");
        write_keeping_limits(&path, "# new\n").expect("first card");
        std::fs::write(&path, "# old\n\n## Limits\n\n- small\n").expect("card");
        write_keeping_limits(&path, "# new\n").expect("second card");
        assert_eq!(std::fs::read_to_string(&path).expect("card"), "# new\n\n## Limits\n\n- small\n");
    }
}
