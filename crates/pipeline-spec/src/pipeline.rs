//! A pipeline file: `pipelines/*.toml`, which declares a sweep.
//!
//! Lists (shots, seeds, backbones, methods) are expanded to the cells of the sweep by [`crate::Plan::new`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

use crate::spec::{
    Coupling, HeadInit, LanguageModelSpec, LatentOnlySpec, LatentSamples, LatentsOptions, Method,
    OtherClasses, Pool, Preset, Scheduler, ShortClass, StoredSize, Training, ValShots,
};
use crate::{ClusterTable, DatasetId, Error, Seed, Shots};

/// What a pipeline file declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Name for people, used in the names of reports.
    pub name: String,
    /// What it shows and what it does not; printed at the top of the report.
    pub description: String,
    /// Data set; its manifest is `data-manifests/<dataset>.toml`.
    pub dataset: DatasetId,
    /// CLIP checkpoints, folder names below the weights folder.
    pub backbones: Vec<String>,
    /// Texts of the text classifier.
    pub text_classifier: TextClassifierTable,
    /// Real images.
    pub images: ImagesTable,
    /// Shot lists.
    pub fewshot: FewshotTable,
    /// Prompts.
    pub prompts: PromptsTable,
    /// Generated samples; absent where no method uses any.
    pub latents: Option<LatentsTable>,
    /// Latents of the real images of each shot list, in the place of generated samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_latents: Option<EncodedLatentsTable>,
    /// Settings that the fine-tuned methods share.
    pub training: Option<Training>,
    /// Augmented views of the shots, which the methods on frozen features train on.
    pub cache_views: Option<CacheViews>,
    /// Held-out splits that are evaluated.
    pub evaluation_splits: Vec<String>,
    /// Train on the first half of the classes only, and evaluate on the other half too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_split: Option<ClassSplit>,
    /// Other data sets that every run is evaluated on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<TransferTable>,
    /// The methods, each run over all backbones, shots and seeds.
    pub methods: Vec<MethodTable>,
    /// The method that the report compares all others with; absent: zero-shot if it is among them, otherwise the first. No
    /// part of any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How the units run on a cluster; no part of any key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterTable>,
}

/// How the classes are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassSplit {
    /// [`crate::spec::ClassHalf`]: trained on the base classes, evaluated on base and new ones, each among its own half.
    BaseToNew,
}

/// Another data set to evaluate on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferTable {
    /// Data set; its manifest is `data-manifests/<dataset>.toml`.
    pub dataset: DatasetId,
    /// Its splits that are evaluated.
    pub splits: Vec<String>,
    /// How the runs meet its classes.
    pub classes: OtherClasses,
    /// See [`crate::spec::ImagesSpec::num_parts`].
    pub num_parts: u32,
}

/// Real images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesTable {
    /// See [`crate::spec::ImagesSpec::splits`].
    pub splits: Vec<String>,
    /// See [`crate::spec::ImagesSpec::image_size`].
    pub image_size: u32,
    /// See [`crate::spec::ImagesSpec::stored`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredSize>,
    /// See [`crate::spec::ImagesSpec::num_parts`].
    pub num_parts: u32,
}

/// Shot lists: every number of shots with every seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewshotTable {
    /// Training images per class.
    pub shots: Vec<Shots>,
    /// Seeds of the draw, and of the run on it.
    pub seeds: Vec<Seed>,
    /// See [`crate::spec::FewshotSplitsSpec::val_shots`].
    pub val_shots: ValShots,
    /// See [`crate::spec::FewshotSplitsSpec::short_class`].
    pub short_class: ShortClass,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PromptsTable {
    /// See [`crate::spec::PromptProvider::Templates`].
    Templates {
        /// Templates, each with one `{}`.
        templates: Vec<String>,
    },
    /// The templates that the data set's manifest names.
    Manifest,
    /// See [`crate::spec::PromptProvider::File`]; the digest is taken when the plan is made.
    File {
        /// Name for people.
        name: String,
        /// Path of the JSON file or of the folder of text files, relative to the folder where the tool runs.
        path: String,
    },
    /// See [`crate::spec::PromptProvider::Openai`].
    Openai(LanguageModelSpec),
}

/// Texts of the text classifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TextClassifierTable {
    /// See [`crate::spec::ClassTexts::Templates`].
    Templates {
        /// Templates, each with one `{}`.
        templates: Vec<String>,
    },
    /// The templates that the data set's manifest names: CoOp's hand-made one for each of its data sets.
    Manifest,
    /// The seven of [`IMAGENET_7`].
    #[serde(rename = "imagenet-7")]
    ImageNet7,
    /// The prompts of `[prompts]`; see [`crate::spec::ClassTexts::Prompts`].
    Prompts {
        /// Whether a prompt beyond the context is cut; otherwise it is an error.
        truncate: bool,
    },
}

/// The seven templates that openai/CLIP's notebook on prompt engineering found best for ImageNet; Tip-Adapter uses them.
pub const IMAGENET_7: [&str; 7] = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
];

/// Generated samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentsTable {
    /// Stable Diffusion checkpoint, a folder name below the weights folder.
    pub checkpoint: String,
    /// See [`crate::spec::LatentsSpec::samples_per_prompt`].
    pub samples_per_prompt: u32,
    /// See [`crate::spec::LatentsSpec::scheduler`].
    pub scheduler: Scheduler,
    /// See [`crate::spec::LatentsSpec::num_inference_steps`].
    pub num_inference_steps: u32,
    /// See [`crate::spec::LatentsSpec::guidance_scale`].
    pub guidance_scale: f64,
    /// See [`crate::spec::LatentsSpec::negative_prompt`].
    pub negative_prompt: String,
    /// See [`crate::spec::LatentsSpec::seed`].
    pub seed: Seed,
    /// See [`crate::spec::LatentsSpec::num_parts`].
    pub num_parts: u32,
    /// See [`crate::spec::LatentsSpec::options`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<LatentsOptions>,
    /// See [`crate::spec::LatentsSpec::selection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<SelectionTable>,
}

/// Selection of generated samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionTable {
    /// CLIP checkpoint, a folder name below the weights folder.
    pub clip: String,
    /// See [`crate::spec::SelectionSpec::template`].
    pub template: String,
    /// See [`crate::spec::SelectionSpec::keep_per_class`].
    pub keep_per_class: u32,
}

/// Latents of real images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedLatentsTable {
    /// Stable Diffusion checkpoint, a folder name below the weights folder.
    pub checkpoint: String,
    /// See [`crate::spec::EncodedLatentsSpec::image_size`].
    pub image_size: u32,
    /// See [`crate::spec::EncodedLatentsSpec::num_parts`].
    pub num_parts: u32,
}

/// Augmented views of the images of a shot list.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheViews {
    /// Passes over the shot list.
    pub views: u32,
    /// Smallest area of the crop, relative to the image.
    pub scale_min: f64,
}

/// A method of the sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodTable {
    /// Name in tables and run names.
    pub name: String,
    /// What is trained.
    pub method: MethodKind,
    /// Instead of the pipeline's [`Pipeline::text_classifier`].
    pub text_classifier: Option<TextClassifierTable>,
    /// Instead of the pipeline's [`Pipeline::prompts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptsTable>,
    /// Instead of the pipeline's [`Pipeline::latents`] or [`Pipeline::encoded_latents`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentsTable>,
    /// Instead of the pipeline's [`Pipeline::latents`] or [`Pipeline::encoded_latents`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_latents: Option<EncodedLatentsTable>,
}

impl MethodTable {
    /// How real images are encoded for the method: its own table, or else the pipeline's.
    pub(crate) fn encoded_latents_of<'a>(
        &'a self,
        pipeline: &'a Pipeline,
    ) -> Option<&'a EncodedLatentsTable> {
        self.encoded_latents.as_ref().or(pipeline.encoded_latents.as_ref())
    }

    /// How latents are drawn for the method, which may encode real images beside: its own table, or else the pipeline's.
    pub(crate) fn generated_latents_of<'a>(&'a self, pipeline: &'a Pipeline) -> Option<&'a LatentsTable> {
        self.latents.as_ref().or(pipeline.latents.as_ref())
    }

    /// The latents that the method reads: its own table, or else the pipeline's.
    pub(crate) fn latents_of<'a>(&'a self, pipeline: &'a Pipeline) -> Option<LatentSource<'a>> {
        let source = |latents: &'a Option<LatentsTable>, encoded: &'a Option<EncodedLatentsTable>| {
            let generated = latents.as_ref().map(LatentSource::Generated);
            generated.or(encoded.as_ref().map(LatentSource::Encoded))
        };
        source(&self.latents, &self.encoded_latents)
            .or_else(|| source(&pipeline.latents, &pipeline.encoded_latents))
    }
}

/// Where the latents of a method come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LatentSource<'a> {
    /// They are drawn.
    Generated(&'a LatentsTable),
    /// Real images are encoded.
    Encoded(&'a EncodedLatentsTable),
}

/// What a method trains; the fine-tuned ones take the pipeline's `[training]`.
pub type MethodKind = Method<PresetTable>;

/// A preset of the switches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetTable {
    /// The preset.
    pub preset: Preset,
    /// Instead of the pipeline's [`crate::spec::FineTuneSpec::head_init`].
    pub head_init: Option<HeadInit>,
    /// Instead of the pipeline's [`crate::spec::FineTuneSpec::pool`].
    pub pool: Option<Pool>,
    /// Instead of the preset's [`crate::spec::FineTuneSpec::coupling`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupling: Option<Coupling>,
    /// Instead of the pipeline's [`Training::latent_factor`].
    pub latent_factor: Option<f64>,
    /// Instead of the pipeline's [`Training::latent_scale`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_scale: Option<f64>,
    /// Instead of the pipeline's [`Training::generated_per_class`].
    pub generated_per_class: Option<u32>,
}

impl Pipeline {
    /// Reads and checks a pipeline file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, has an unknown or missing field, repeats a value of a list, or names a
    /// method whose table is missing.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let malformed =
            |reason: String| Error::Malformed { path: path.into(), what: "pipeline file", reason };
        let pipeline: Self = toml::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        pipeline.check().map_err(|e| malformed(e.to_string()))?;
        Ok(pipeline)
    }

    fn check(&self) -> Result<(), Error> {
        let field = |field: &str, problem: String| Err(Error::Field { field: field.to_owned(), problem });
        for (name, repeated, empty) in [
            ("fewshot.shots", has_repeats(&self.fewshot.shots), self.fewshot.shots.is_empty()),
            ("fewshot.seeds", has_repeats(&self.fewshot.seeds), self.fewshot.seeds.is_empty()),
            ("backbones", has_repeats(&self.backbones), self.backbones.is_empty()),
            ("transfers", has_repeats(self.transfers.iter().map(|t| &t.dataset)), false),
            ("methods", has_repeats(self.methods.iter().map(|m| &m.name)), self.methods.is_empty()),
        ] {
            if repeated || empty {
                let found = if empty { "none" } else { "a value twice" };
                return field(name, format!("expected at least one value and none twice, found {found}"));
            }
        }
        if let Some(reference) = &self.reference
            && self.methods.iter().all(|method| method.name != *reference)
        {
            let problem = format!("expected the name of a method, found `{reference}`");
            return field("reference", problem);
        }
        let own = self.methods.iter().map(|method| (&method.latents, &method.encoded_latents));
        for (latents, encoded) in own.chain([(&self.latents, &self.encoded_latents)]) {
            if latents.is_some() && encoded.is_some() {
                let problem = "expected `[latents]` or `[encoded_latents]`, found both";
                return field("encoded_latents", problem.to_owned());
            }
        }
        let own = self.methods.iter().filter_map(|method| method.text_classifier.as_ref());
        for table in own.chain([&self.text_classifier]) {
            if let TextClassifierTable::Templates { templates } = table
                && has_repeats(templates)
            {
                let problem = "expected no template twice, found one twice";
                return field("text_classifier.templates", problem.to_owned());
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.check()?;
        }
        self.methods.iter().try_for_each(|method| self.check_method(method))
    }

    /// Whether the runs of the pipeline meet classes by their texts.
    fn needs_texts(&self) -> bool {
        self.class_split.is_some() || self.transfers.iter().any(|t| t.classes == OtherClasses::Texts)
    }

    /// Checks that the tables which `method` reads are there, and that it can meet the classes that it is evaluated on.
    fn check_method(&self, method: &MethodTable) -> Result<(), Error> {
        let fault = |field: &str, problem: String| Err(Error::Field { field: field.to_owned(), problem });
        let name = &method.name;
        let needs = |table: &str| {
            fault(table, format!("expected the table `[{table}]`, which method `{name}` needs, found none"))
        };
        if self.needs_texts() && !method.method.meets_texts() {
            let problem = format!(
                "expected methods whose classifier is made of texts (`zero-shot`, `clip-adapter`, `prolip`) with \
                 `class_split` or `classes = \"texts\"`, found method `{name}`, which knows only its own classes"
            );
            return fault("methods", problem);
        }
        let latents = method.latents_of(self);
        match method.method {
            Method::ZeroShot | Method::LinearProbe(_) | Method::ClipLora(_) | Method::TwoStage(_) => Ok(()),
            Method::LatentOnly(LatentOnlySpec { samples, .. }) => {
                let Some(encoded) = method.encoded_latents_of(self) else { return needs("encoded_latents") };
                let LatentSamples::Generated { .. } = samples else { return Ok(()) };
                let Some(drawn) = method.generated_latents_of(self) else { return needs("latents") };
                if encoded.checkpoint == drawn.checkpoint {
                    return Ok(());
                }
                let problem = format!(
                    "expected `{}`, which draws the latents of method `{name}`, found `{}`",
                    drawn.checkpoint, encoded.checkpoint
                );
                fault("encoded_latents.checkpoint", problem)
            }
            Method::FineTune(_) if self.training.is_none() => needs("training"),
            Method::FineTune(PresetTable { preset, .. })
                if preset != Preset::RealOnly && latents.is_none() =>
            {
                needs("latents")
            }
            Method::FineTune(_) => Ok(()),
            Method::Cafo(_) if !matches!(latents, Some(LatentSource::Generated(_))) => needs("latents"),
            _ if self.cache_views.is_none() => needs("cache_views"),
            _ => Ok(()),
        }
    }
}

fn has_repeats<T: Ord>(values: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    !values.into_iter().all(|value| seen.insert(value))
}
