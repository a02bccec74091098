//! The plan: every unit of a pipeline, each once, in an order that respects what it reads.

mod evaluation;

pub use evaluation::{Target, place};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data_manifest::DataManifest;
use crate::pipeline::{
    EncodedLatentsTable, IMAGENET_7, LatentSource, LatentsTable, MethodTable, PromptsTable,
    TextClassifierTable,
};
use crate::spec::{
    CheckpointsSpec, ClassTexts, EncodedLatentsSpec, FeatureLayer, FeaturesSpec, FewshotSplitsSpec,
    FineTuneSpec, LatentOnlySpec, LatentSamples, LatentsSpec, Method, PromptProvider, PromptsSpec,
    SelectionSpec, StageSpec, ViewAugment,
};
use crate::{
    ArtifactId, CheckpointRef, DatasetId, Digest, Error, Pipeline, Seed, Shots, Unit, checkpoint_digest,
    file_blake3, prompts_digest,
};
use evaluation::{PlannedTarget, Reads};

/// Every unit of a pipeline. Immutable once made; its file name holds its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The pipeline that was expanded.
    pub pipeline: Pipeline,
    /// The units; each stands after everything it reads.
    pub units: Vec<PlannedUnit>,
}

/// A unit of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedUnit {
    /// What to compute.
    pub unit: Unit,
    /// What it yields.
    pub output: ArtifactId,
    /// Indices of the units whose outputs it reads.
    pub depends_on: Vec<usize>,
}

impl Plan {
    /// Expands `pipeline`, reading the digests of its manifest and checkpoints.
    ///
    /// # Errors
    ///
    /// Fails if the manifest or a checkpoint cannot be read or a value is out of range.
    pub fn new(pipeline: Pipeline, manifests: &Path, weights: &Path) -> Result<Self, Error> {
        let mut expansion = Expansion {
            pipeline: &pipeline,
            manifests,
            weights,
            targets: vec![],
            units: vec![],
            by_output: BTreeMap::new(),
        };
        expansion.expand()?;
        let units = expansion.units;
        Ok(Self { pipeline, units })
    }

    /// Digest of the plan, 16 hexadecimal digits.
    pub fn id(&self) -> String {
        let json = serde_json::to_string(&self.units).expect("a plan is plain data");
        Digest::blake3(json.as_bytes()).as_str()[..16].to_owned()
    }

    /// Reads a plan file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or an output does not belong to its unit.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let malformed = |reason: String| Error::Malformed { path: path.into(), what: "plan file", reason };
        let plan: Self = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        for (index, planned) in plan.units.iter().enumerate() {
            let output = planned.unit.output();
            if output != planned.output {
                let reason = format!(
                    "field `units[{index}].output`: expected `{output}`, found `{}`; make the plan again",
                    planned.output
                );
                return Err(malformed(reason));
            }
            if let Some(later) = planned.depends_on.iter().find(|&&d| d >= index) {
                let reason =
                    format!("field `units[{index}].depends_on`: expected earlier units, found {later}");
                return Err(malformed(reason));
            }
        }
        Ok(plan)
    }
}

/// The state of one expansion.
struct Expansion<'a> {
    pipeline: &'a Pipeline,
    manifests: &'a Path,
    weights: &'a Path,
    /// What every run is evaluated on; first of all the held-out images of its own data set.
    targets: Vec<PlannedTarget>,
    units: Vec<PlannedUnit>,
    by_output: BTreeMap<ArtifactId, usize>,
}

/// One cell of the sweep.
#[derive(Clone, Copy)]
struct Cell {
    shots: Shots,
    seed: Seed,
}

impl Expansion<'_> {
    /// Adds a unit unless it is there already; gives its output.
    fn add(&mut self, spec: StageSpec, inputs: &[(&str, &ArtifactId)]) -> Result<ArtifactId, Error> {
        let inputs: BTreeMap<_, _> = inputs.iter().map(|&(n, id)| (n.to_owned(), id.clone())).collect();
        let unit = Unit { spec, inputs };
        unit.check()?;
        let output = unit.output();
        if !self.by_output.contains_key(&output) {
            let depends_on = unit.inputs.values().filter_map(|id| self.by_output.get(id).copied()).collect();
            self.by_output.insert(output.clone(), self.units.len());
            self.units.push(PlannedUnit { unit, output: output.clone(), depends_on });
        }
        Ok(output)
    }

    fn checkpoint(&self, id: &str) -> Result<CheckpointRef, Error> {
        Ok(CheckpointRef { id: id.to_owned(), digest: checkpoint_digest(&self.weights.join(id))? })
    }

    fn expand(&mut self) -> Result<(), Error> {
        let pipeline = self.pipeline;
        let images = self.training_images()?;
        self.plan_targets(&images)?;
        if let Some(table) = &pipeline.latents {
            self.latents(table, &pipeline.prompts)?;
        }
        let mut backbones = Vec::new();
        for id in &pipeline.backbones {
            let backbone = self.checkpoint(id)?;
            self.training_features(&backbone, None, &images)?;
            for index in 0..self.targets.len() {
                self.target_features(&backbone, None, index)?;
            }
            backbones.push(backbone);
        }
        for &shots in &pipeline.fewshot.shots {
            for &seed in &pipeline.fewshot.seeds {
                self.cell(Cell { shots, seed }, &images, &backbones)?;
            }
        }
        for backbone in &backbones {
            for table in pipeline.methods.iter().filter(|t| t.method == Method::ZeroShot) {
                let spec = self.checkpoints_spec(table, backbone, None, Method::ZeroShot)?;
                let run = self.train(table, &spec, &[("images", &images)])?;
                self.evaluate(table, &spec, &run, Reads::Features(None))?;
            }
        }
        Ok(())
    }

    fn manifest(&self, dataset: &DatasetId) -> PathBuf {
        self.manifests.join(format!("{dataset}.toml"))
    }

    fn prompts(&mut self, table: &PromptsTable) -> Result<ArtifactId, Error> {
        let dataset = self.pipeline.dataset.clone();
        let provider = match table.clone() {
            PromptsTable::Templates { templates } => PromptProvider::Templates { templates },
            PromptsTable::Manifest => {
                PromptProvider::Templates { templates: self.manifest_templates(&dataset)? }
            }
            PromptsTable::File { name, path } => {
                let digest = prompts_digest(Path::new(&path))?;
                PromptProvider::File { name, path, digest }
            }
            PromptsTable::Openai(spec) => PromptProvider::Openai(spec),
        };
        let manifest_digest = file_blake3(&self.manifest(&dataset))?.1;
        self.add(StageSpec::Prompts(PromptsSpec { dataset, manifest_digest, provider }), &[])
    }

    fn manifest_templates(&self, dataset: &DatasetId) -> Result<Vec<String>, Error> {
        Ok(DataManifest::read(&self.manifest(dataset))?.0.templates)
    }

    fn latents(&mut self, table: &LatentsTable, prompts: &PromptsTable) -> Result<ArtifactId, Error> {
        let prompts = self.prompts(prompts)?;
        let dataset = self.pipeline.dataset.clone();
        let selection = match &table.selection {
            Some(selection) => Some(SelectionSpec {
                clip: self.checkpoint(&selection.clip)?,
                template: selection.template.clone(),
                keep_per_class: selection.keep_per_class,
            }),
            None => None,
        };
        let spec = LatentsSpec {
            dataset,
            checkpoint: self.checkpoint(&table.checkpoint)?,
            samples_per_prompt: table.samples_per_prompt,
            scheduler: table.scheduler,
            num_inference_steps: table.num_inference_steps,
            guidance_scale: table.guidance_scale,
            negative_prompt: table.negative_prompt.clone(),
            seed: table.seed,
            num_parts: table.num_parts,
            options: table.options.clone(),
            selection,
        };
        self.add(StageSpec::Latents(spec), &[("prompts", &prompts)])
    }

    fn encoded_latents(
        &mut self,
        table: &EncodedLatentsTable,
        cell: Cell,
        images: &ArtifactId,
        shots: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let spec = EncodedLatentsSpec {
            dataset: self.pipeline.dataset.clone(),
            checkpoint: self.checkpoint(&table.checkpoint)?,
            run: format!("{}-shots{}-seed{}", table.checkpoint.to_lowercase(), cell.shots, cell.seed),
            splits: None,
            image_size: table.image_size,
            num_parts: table.num_parts,
        };
        self.add(StageSpec::EncodedLatents(spec), &[("images", images), ("fewshot-splits", shots)])
    }

    /// Adds the features of training images as they are.
    fn training_features(
        &mut self,
        backbone: &CheckpointRef,
        layer: Option<FeatureLayer>,
        images: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let splits = vec!["train".to_owned(), "val".to_owned()];
        let spec = plain_features(self.pipeline.dataset.clone(), backbone, splits, layer);
        self.add(StageSpec::Features(spec), &[("images", images)])
    }

    fn cell(&mut self, cell: Cell, images: &ArtifactId, backbones: &[CheckpointRef]) -> Result<(), Error> {
        let fewshot = &self.pipeline.fewshot;
        let shots = self.add(
            StageSpec::FewshotSplits(FewshotSplitsSpec {
                dataset: self.pipeline.dataset.clone(),
                shots: cell.shots,
                seed: cell.seed,
                val_shots: fewshot.val_shots,
                short_class: fewshot.short_class,
            }),
            &[("images", images)],
        )?;
        if let Some(table) = &self.pipeline.encoded_latents {
            self.encoded_latents(table, cell, images, &shots)?;
        }
        for backbone in backbones {
            for table in &self.pipeline.methods {
                self.run(table, backbone, cell, images, &shots)?;
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        table: &MethodTable,
        backbone: &CheckpointRef,
        cell: Cell,
        images: &ArtifactId,
        shots: &ArtifactId,
    ) -> Result<(), Error> {
        if table.method == Method::ZeroShot {
            return Ok(());
        }
        let prompts = table.prompts.as_ref().unwrap_or(&self.pipeline.prompts);
        let training = self.pipeline.training;
        let method = table.method.clone().try_map_fine_tune(|preset| {
            let mut training = training.ok_or_else(|| missing("training"))?;
            training.head_init = preset.head_init.unwrap_or(training.head_init);
            training.pool = preset.pool.unwrap_or(training.pool);
            training.latent_factor = preset.latent_factor.unwrap_or(training.latent_factor);
            training.latent_scale = preset.latent_scale.or(training.latent_scale);
            training.generated_per_class = preset.generated_per_class.or(training.generated_per_class);
            let spec = FineTuneSpec::preset(preset.preset, &training);
            Ok(FineTuneSpec { coupling: preset.coupling.unwrap_or(spec.coupling), ..spec })
        })?;
        let layer = method.feature_layer();
        let mut inputs = Vec::new();
        for slot in method.input_slots() {
            let id = match (slot.name, &method) {
                ("images", _) => images.clone(),
                ("fewshot-splits", _) => shots.clone(),
                ("latents", method) => self.method_latents(table, method, cell, images, shots)?,
                ("features", _) => self.training_features(backbone, layer, images)?,
                ("cache-features", _) => self.cache_features(backbone, cell, layer, images, shots)?,
                ("generated-features", Method::Cafo(cafo)) => {
                    let count = cafo.generated_per_class.unwrap_or(cell.shots);
                    let Some(LatentSource::Generated(latents)) = table.latents_of(self.pipeline) else {
                        return Err(missing("latents"));
                    };
                    let latents = self.latents(latents, prompts)?;
                    self.generated_features(backbone, cell, count, &latents)?
                }
                (name, _) => return Err(missing(name)),
            };
            inputs.push((slot.name, id));
        }
        let reads = match method {
            Method::LatentOnly(_) => Reads::Latents,
            _ if method.trains_encoder() => Reads::Images,
            _ => Reads::Features(layer),
        };
        let spec = self.checkpoints_spec(table, backbone, Some(cell), method)?;
        let inputs: Vec<_> = inputs.iter().map(|(name, id)| (*name, id)).collect();
        let run = self.train(table, &spec, &inputs)?;
        self.evaluate(table, &spec, &run, reads)
    }

    /// Adds the latents that a method is trained on: generated ones, or those of its shot list's images.
    fn method_latents(
        &mut self,
        table: &MethodTable,
        method: &Method,
        cell: Cell,
        images: &ArtifactId,
        shots: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let pipeline = self.pipeline;
        let source = match method {
            Method::LatentOnly(LatentOnlySpec { samples: LatentSamples::Shots, .. }) => {
                let encoded = table.encoded_latents_of(pipeline).ok_or_else(|| missing("encoded_latents"))?;
                LatentSource::Encoded(encoded)
            }
            Method::LatentOnly(_) => {
                let drawn = table.generated_latents_of(pipeline).ok_or_else(|| missing("latents"))?;
                LatentSource::Generated(drawn)
            }
            _ => table.latents_of(pipeline).ok_or_else(|| missing("latents"))?,
        };
        match source {
            LatentSource::Generated(latents) => {
                self.latents(latents, table.prompts.as_ref().unwrap_or(&pipeline.prompts))
            }
            LatentSource::Encoded(latents) => self.encoded_latents(latents, cell, images, shots),
        }
    }

    /// Adds a training run; `inputs` are all but the prompts of its text classifier.
    fn train(
        &mut self,
        table: &MethodTable,
        spec: &CheckpointsSpec,
        inputs: &[(&str, &ArtifactId)],
    ) -> Result<ArtifactId, Error> {
        let prompts = match spec.class_texts {
            Some(ClassTexts::Prompts { .. }) => {
                Some(self.prompts(table.prompts.as_ref().unwrap_or(&self.pipeline.prompts))?)
            }
            _ => None,
        };
        let prompts = prompts.iter().map(|id| ("prompts", id));
        let inputs: Vec<_> = inputs.iter().copied().chain(prompts).collect();
        self.add(StageSpec::Checkpoints(spec.clone()), &inputs)
    }

    /// Adds the features of augmented views of the shots.
    fn cache_features(
        &mut self,
        backbone: &CheckpointRef,
        cell: Cell,
        layer: Option<FeatureLayer>,
        images: &ArtifactId,
        shots: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let spec = self.views_spec(backbone, cell, layer, None)?;
        self.add(StageSpec::Features(spec), &[("images", images), ("fewshot-splits", shots)])
    }

    /// Adds the features of augmented views of generated images.
    fn generated_features(
        &mut self,
        backbone: &CheckpointRef,
        cell: Cell,
        per_class: u32,
        latents: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let spec = self.views_spec(backbone, cell, None, Some(per_class))?;
        self.add(StageSpec::Features(spec), &[("latents", latents)])
    }

    fn views_spec(
        &self,
        backbone: &CheckpointRef,
        cell: Cell,
        layer: Option<FeatureLayer>,
        generated_per_class: Option<u32>,
    ) -> Result<FeaturesSpec, Error> {
        let views = self.pipeline.cache_views.ok_or_else(|| missing("cache_views"))?;
        Ok(FeaturesSpec {
            dataset: self.pipeline.dataset.clone(),
            backbone: backbone.clone(),
            splits: vec!["train".to_owned()],
            view: ViewAugment::CropFlip { views: views.views, scale_min: views.scale_min, seed: cell.seed },
            layer,
            generated_per_class,
        })
    }

    fn checkpoints_spec(
        &self,
        table: &MethodTable,
        backbone: &CheckpointRef,
        cell: Option<Cell>,
        method: Method,
    ) -> Result<CheckpointsSpec, Error> {
        let class_texts = match method.reads_texts() {
            true => Some(self.class_texts(table.text_classifier.as_ref(), &self.pipeline.dataset)?),
            false => None,
        };
        let cell_name = cell.map_or(String::new(), |c| format!("-shots{}-seed{}", c.shots, c.seed));
        Ok(CheckpointsSpec {
            dataset: self.pipeline.dataset.clone(),
            run: format!("{}-{}{cell_name}", table.name, backbone.id.to_lowercase()),
            method_name: table.name.clone(),
            backbone: backbone.clone(),
            shots: cell.map(|c| c.shots),
            seed: cell.map_or(0, |c| c.seed),
            class_texts,
            method,
        })
    }

    /// Texts of `own`, a method's table, or else of the pipeline's, for the classes of `dataset`.
    fn class_texts(
        &self,
        own: Option<&TextClassifierTable>,
        dataset: &DatasetId,
    ) -> Result<ClassTexts, Error> {
        let templates = match own.unwrap_or(&self.pipeline.text_classifier) {
            TextClassifierTable::Templates { templates } => templates.clone(),
            TextClassifierTable::Manifest => self.manifest_templates(dataset)?,
            TextClassifierTable::ImageNet7 => IMAGENET_7.map(str::to_owned).to_vec(),
            &TextClassifierTable::Prompts { truncate } => return Ok(ClassTexts::Prompts { truncate }),
        };
        Ok(ClassTexts::Templates { templates })
    }
}

/// Features of images as they are.
fn plain_features(
    dataset: DatasetId,
    backbone: &CheckpointRef,
    splits: Vec<String>,
    layer: Option<FeatureLayer>,
) -> FeaturesSpec {
    let backbone = backbone.clone();
    FeaturesSpec { dataset, backbone, splits, view: ViewAugment::Center, layer, generated_per_class: None }
}

fn missing(table: &str) -> Error {
    Error::Field { field: table.to_owned(), problem: "expected a table, found none".to_owned() }
}
