//! The plan: every unit of a pipeline, each once, in an order that respects what it reads.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::data_manifest::DataManifest;
use crate::pipeline::{
    EncodedLatentsTable, IMAGENET_7, LatentsTable, MethodTable, PromptsTable, TextClassifierTable,
};
use crate::spec::{
    CheckpointsSpec, ClassTexts, EncodedLatentsSpec, FeatureLayer, FeaturesSpec, FewshotSplitsSpec,
    FineTuneSpec, ImagesSpec, LatentsSpec, Method, MetricsSpec, PredictionSource, PredictionsSpec,
    PromptProvider, PromptsSpec, SelectionSpec, StageSpec, ViewAugment, WeightsUsed,
};
use crate::{
    ArtifactId, CheckpointRef, Digest, Error, Pipeline, Seed, Shots, Unit, checkpoint_digest, file_digests,
    prompts_digest,
};

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
        let manifest = manifests.join(format!("{}.toml", pipeline.dataset));
        let manifest_digest = file_digests(&manifest)?.1;
        let mut expansion = Expansion {
            pipeline: &pipeline,
            manifest: &manifest,
            manifest_digest,
            weights,
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
    manifest: &'a Path,
    manifest_digest: Digest,
    weights: &'a Path,
    units: Vec<PlannedUnit>,
    by_output: BTreeMap<ArtifactId, usize>,
}

/// For what features are read.
#[derive(Clone, Copy)]
enum Seen {
    Training,
    Evaluation,
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
        let images = self.add(
            StageSpec::Images(ImagesSpec {
                dataset: pipeline.dataset.clone(),
                manifest_digest: self.manifest_digest.clone(),
                splits: pipeline.images.splits.clone(),
                image_size: pipeline.images.image_size,
                stored: pipeline.images.stored,
                num_parts: pipeline.images.num_parts,
            }),
            &[],
        )?;
        let latents = pipeline.latents.as_ref().map(|table| self.latents(table)).transpose()?;
        let mut backbones = Vec::new();
        for id in &pipeline.backbones {
            let backbone = self.checkpoint(id)?;
            self.features(&backbone, Seen::Training, None, &images)?;
            self.features(&backbone, Seen::Evaluation, None, &images)?;
            backbones.push(backbone);
        }
        for &shots in &pipeline.fewshot.shots {
            for &seed in &pipeline.fewshot.seeds {
                self.cell(Cell { shots, seed }, &images, latents.as_ref(), &backbones)?;
            }
        }
        for backbone in &backbones {
            for table in pipeline.methods.iter().filter(|t| t.method == Method::ZeroShot) {
                let spec = self.checkpoints_spec(table, backbone, None, Method::ZeroShot)?;
                let run = self.train(&spec, &[("images", &images)])?;
                let features = self.features(backbone, Seen::Evaluation, None, &images)?;
                self.evaluate(&spec, &run, ("features", &features))?;
            }
        }
        Ok(())
    }

    fn prompts(&mut self) -> Result<ArtifactId, Error> {
        let provider = match self.pipeline.prompts.clone() {
            PromptsTable::Templates { templates } => PromptProvider::Templates { templates },
            PromptsTable::Manifest => PromptProvider::Templates { templates: self.manifest_templates()? },
            PromptsTable::File { name, path } => {
                let digest = prompts_digest(Path::new(&path))?;
                PromptProvider::File { name, path, digest }
            }
            PromptsTable::Openai(spec) => PromptProvider::Openai(spec),
        };
        let dataset = self.pipeline.dataset.clone();
        let manifest_digest = self.manifest_digest.clone();
        self.add(StageSpec::Prompts(PromptsSpec { dataset, manifest_digest, provider }), &[])
    }

    fn manifest_templates(&self) -> Result<Vec<String>, Error> {
        Ok(DataManifest::read(self.manifest)?.0.templates)
    }

    fn latents(&mut self, table: &LatentsTable) -> Result<ArtifactId, Error> {
        let prompts = self.prompts()?;
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
            image_size: table.image_size,
            num_parts: table.num_parts,
        };
        self.add(StageSpec::EncodedLatents(spec), &[("images", images), ("fewshot-splits", shots)])
    }

    /// Adds the features of images as they are.
    fn features(
        &mut self,
        backbone: &CheckpointRef,
        seen: Seen,
        layer: Option<FeatureLayer>,
        images: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let splits = match seen {
            Seen::Training => vec!["train".to_owned(), "val".to_owned()],
            Seen::Evaluation => self.pipeline.evaluation_splits.clone(),
        };
        let spec = FeaturesSpec {
            dataset: self.pipeline.dataset.clone(),
            backbone: backbone.clone(),
            splits,
            view: ViewAugment::Center,
            layer,
            generated_per_class: None,
        };
        self.add(StageSpec::Features(spec), &[("images", images)])
    }

    fn cell(
        &mut self,
        cell: Cell,
        images: &ArtifactId,
        latents: Option<&ArtifactId>,
        backbones: &[CheckpointRef],
    ) -> Result<(), Error> {
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
        let encoded = match &self.pipeline.encoded_latents {
            Some(table) => Some(self.encoded_latents(table, cell, images, &shots)?),
            None => None,
        };
        for backbone in backbones {
            for table in &self.pipeline.methods {
                self.run(table, backbone, cell, images, &shots, encoded.as_ref().or(latents))?;
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
        latents: Option<&ArtifactId>,
    ) -> Result<(), Error> {
        if table.method == Method::ZeroShot {
            return Ok(());
        }
        let training = self.pipeline.training;
        let method = table.method.clone().try_map_fine_tune(|preset| {
            let mut training = training.ok_or_else(|| missing("training"))?;
            training.head_init = preset.head_init.unwrap_or(training.head_init);
            training.pool = preset.pool.unwrap_or(training.pool);
            training.latent_factor = preset.latent_factor.unwrap_or(training.latent_factor);
            training.generated_per_class = preset.generated_per_class.or(training.generated_per_class);
            Ok(FineTuneSpec::preset(preset.preset, &training))
        })?;
        let layer = method.feature_layer();
        let mut inputs = Vec::new();
        for slot in method.input_slots() {
            let id = match (slot.name, &method) {
                ("images", _) => images.clone(),
                ("fewshot-splits", _) => shots.clone(),
                ("latents", _) => latents.ok_or_else(|| missing("latents"))?.clone(),
                ("features", _) => self.features(backbone, Seen::Training, layer, images)?,
                ("cache-features", _) => self.cache_features(backbone, cell, layer, images, shots)?,
                ("generated-features", Method::Cafo(cafo)) => {
                    let count = cafo.generated_per_class.unwrap_or(cell.shots);
                    let latents = latents.ok_or_else(|| missing("latents"))?;
                    self.generated_features(backbone, cell, count, latents)?
                }
                (name, _) => return Err(missing(name)),
            };
            inputs.push((slot.name, id));
        }
        let source = match &method {
            Method::FineTune(_) => ("images", images.clone()),
            _ => ("features", self.features(backbone, Seen::Evaluation, layer, images)?),
        };
        let spec = self.checkpoints_spec(table, backbone, Some(cell), method)?;
        let inputs: Vec<_> = inputs.iter().map(|(name, id)| (*name, id)).collect();
        let run = self.train(&spec, &inputs)?;
        self.evaluate(&spec, &run, (source.0, &source.1))
    }

    /// Adds a training run; `inputs` are all but the prompts of its text classifier.
    fn train(&mut self, spec: &CheckpointsSpec, inputs: &[(&str, &ArtifactId)]) -> Result<ArtifactId, Error> {
        let prompts = match spec.class_texts {
            Some(ClassTexts::Prompts { .. }) => Some(self.prompts()?),
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
            true => Some(self.class_texts(table.text_classifier.as_ref())?),
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

    /// Texts of `own`, a method's table, or else of the pipeline's.
    fn class_texts(&self, own: Option<&TextClassifierTable>) -> Result<ClassTexts, Error> {
        let templates = match own.unwrap_or(&self.pipeline.text_classifier) {
            TextClassifierTable::Templates { templates } => templates.clone(),
            TextClassifierTable::Manifest => self.manifest_templates()?,
            TextClassifierTable::ImageNet7 => IMAGENET_7.map(str::to_owned).to_vec(),
            &TextClassifierTable::Prompts { truncate } => return Ok(ClassTexts::Prompts { truncate }),
        };
        Ok(ClassTexts::Templates { templates })
    }

    /// Adds predictions and metrics of a run, for the raw weights and, where the run keeps one, their moving average.
    fn evaluate(
        &mut self,
        run: &CheckpointsSpec,
        checkpoints: &ArtifactId,
        source: (&'static str, &ArtifactId),
    ) -> Result<(), Error> {
        let mut weights = vec![(WeightsUsed::Raw, run.run.clone())];
        if matches!(&run.method, Method::FineTune(s) if s.ema_decay.is_some()) {
            weights.push((WeightsUsed::Ema, format!("{}-ema", run.run)));
        }
        for (weights, name) in weights {
            let spec = PredictionsSpec {
                dataset: run.dataset.clone(),
                run: name.clone(),
                splits: self.pipeline.evaluation_splits.clone(),
                source: if source.0 == "images" {
                    PredictionSource::Images
                } else {
                    PredictionSource::Features
                },
                weights,
            };
            let predictions =
                self.add(StageSpec::Predictions(spec), &[source, ("checkpoints", checkpoints)])?;
            let metrics = MetricsSpec { dataset: run.dataset.clone(), run: name };
            self.add(
                StageSpec::Metrics(metrics),
                &[("predictions", &predictions), ("checkpoints", checkpoints)],
            )?;
        }
        Ok(())
    }
}

fn missing(table: &str) -> Error {
    Error::Field { field: table.to_owned(), problem: "expected a table, found none".to_owned() }
}
