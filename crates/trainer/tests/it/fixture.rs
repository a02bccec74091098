//! A store with a tiny data set, and a tiny CLIP beside it.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FewshotRow, FileContext, ImageFile, ImageRow, LatentRow, Outcome,
    PromptRow, Row, SchemaInfo, Shard,
};
use burn::tensor::Device;
use clip_model::{
    Activation, ClipConfig, ModifiedResNetConfig, Preprocess, SaveDtype, TextConfig, VisionConfig,
    VisionTransformerConfig, train_bpe,
};
use image::{ImageFormat, Rgb, RgbImage};
use pipeline_spec::spec::{
    Augment, CheckpointsSpec, ClassTexts, Coupling, FeatureLayer, FeaturesSpec, FewshotSplitsSpec,
    FineTuneSpec, Freeze, GeneratedUse, HeadInit, ImagesSpec, LatentsSpec, Method, OptimizerSpec, Pool,
    PromptProvider, PromptsSpec, Schedule, Scheduler, Select, ShortClass, ValShots, ViewAugment,
};
use pipeline_spec::{
    ArtifactId, CheckpointRef, DatasetId, Digest, StageSpec, Store, Unit, checkpoint_digest,
};
use stage_cli::Cache;
use trainer::{Ending, Error, Settings};

pub const CLASSES: [&str; 3] = ["cat", "dog", "owl"];
pub const TRAIN_PER_CLASS: u32 = 4;
pub const SHOTS: u32 = 2;
pub const VAL_PER_CLASS: u32 = 2;
pub const GENERATED_PER_CLASS: u32 = 4;
pub const VIT: &str = "tiny-vit";
pub const RESNET: &str = "tiny-rn";

/// The pure Rust back end on the CPU.
pub fn device() -> Device {
    backend::DeviceSpec::Cpu.open().unwrap()
}

pub struct Fixture {
    folder: tempfile::TempDir,
    pub store: Store,
    pub device: Device,
    /// Keeps nothing.
    pub cache: Cache,
    pub images: ArtifactId,
    pub shots: ArtifactId,
    pub latents: ArtifactId,
}

impl Fixture {
    /// Images of the test split are files that no decoder takes.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("store"));
        let device = device();
        write_weights(&folder.path().join("weights"), &device);
        let images = write(&store, images_unit(&["train", "val", "test"]), &image_rows(), &[]);
        let shots = write(&store, shots_unit(&images, 1), &shot_rows("train"), &[]);
        let prompts = write(&store, prompts_unit(&["a {}"]), &prompt_rows(), &[]);
        let latents = write(&store, latents_unit(&prompts), &latent_rows(1.0), &[4, 8, 8]);
        Self { folder, store, device, cache: Cache::with_capacity(0), images, shots, latents }
    }

    pub fn weights(&self) -> PathBuf {
        self.folder.path().join("weights")
    }

    pub fn checkpoint(&self, id: &str) -> CheckpointRef {
        CheckpointRef { id: id.to_owned(), digest: checkpoint_digest(&self.weights().join(id)).unwrap() }
    }

    pub fn checkpoints_spec(&self, backbone: &str, method: Method) -> CheckpointsSpec {
        CheckpointsSpec {
            dataset: dataset(),
            run: "run".to_owned(),
            method_name: "method".to_owned(),
            backbone: self.checkpoint(backbone),
            shots: Some(SHOTS),
            seed: 1,
            class_texts: method
                .reads_texts()
                .then(|| ClassTexts::Templates { templates: strings(&["a {}", "an icon of a {}"]) }),
            method,
        }
    }

    pub fn fine_tune_unit(&self, spec: FineTuneSpec) -> Unit {
        self.fine_tune_unit_of(VIT, spec)
    }

    pub fn fine_tune_unit_of(&self, backbone: &str, spec: FineTuneSpec) -> Unit {
        let mut inputs = vec![("images", &self.images), ("fewshot-splits", &self.shots)];
        if spec.generated != GeneratedUse::None {
            inputs.push(("latents", &self.latents));
        }
        unit(StageSpec::Checkpoints(self.checkpoints_spec(backbone, Method::FineTune(spec))), &inputs)
    }

    pub fn features_unit(&self, splits: &[&str], view: ViewAugment) -> Unit {
        self.features_unit_of(VIT, splits, view, None)
    }

    pub fn features_unit_of(
        &self,
        backbone: &str,
        splits: &[&str],
        view: ViewAugment,
        layer: Option<FeatureLayer>,
    ) -> Unit {
        let spec = FeaturesSpec {
            dataset: dataset(),
            backbone: self.checkpoint(backbone),
            splits: strings(splits),
            view,
            layer,
            generated_per_class: None,
        };
        match view {
            ViewAugment::Center => unit(StageSpec::Features(spec), &[("images", &self.images)]),
            ViewAugment::CropFlip { .. } => {
                unit(StageSpec::Features(spec), &[("images", &self.images), ("fewshot-splits", &self.shots)])
            }
        }
    }

    /// Features of views of generated images.
    pub fn generated_features_unit(&self, per_class: u32, view: ViewAugment) -> Unit {
        let spec = FeaturesSpec {
            dataset: dataset(),
            backbone: self.checkpoint(VIT),
            splits: strings(&["train"]),
            view,
            layer: None,
            generated_per_class: Some(per_class),
        };
        unit(StageSpec::Features(spec), &[("latents", &self.latents)])
    }

    pub fn settings<'a>(&'a self, weights: &'a Path) -> Settings<'a> {
        Settings {
            store: &self.store,
            weights,
            shard: Shard::default(),
            batch: 5,
            device: &self.device,
            device_name: "cpu",
            save_every_steps: None,
            log_dir: None,
            cache: &self.cache,
        }
    }

    pub fn run(&self, unit: &Unit) -> Result<ArtifactId, Error> {
        self.run_sharing(&self.cache, unit)
    }

    pub fn run_sharing(&self, cache: &Cache, unit: &Unit) -> Result<ArtifactId, Error> {
        let weights = self.weights();
        let settings = Settings { cache, ..self.settings(&weights) };
        let ending = trainer::run(unit, &settings, &mut |_, _| ControlFlow::Continue(()))?;
        assert!(matches!(ending, Ending::Done(Outcome::Finished(_))), "{ending:?}");
        Ok(unit.output())
    }

    pub fn reader(&self, id: &ArtifactId) -> ArtifactReader {
        ArtifactReader::open(&self.store, id).unwrap()
    }

    /// Content of every file of a run, by name.
    pub fn files(&self, id: &ArtifactId) -> Vec<(String, Vec<u8>)> {
        let read = |name: &str| std::fs::read(self.store.data_dir(id).join(name)).unwrap();
        self.store.record(id).unwrap().parts.iter().map(|p| (p.file.clone(), read(&p.file))).collect()
    }

    /// Removes a finished artifact, so that it is computed again.
    pub fn forget(&self, id: &ArtifactId) {
        std::fs::remove_dir_all(self.store.artifact_dir(id)).unwrap();
    }

    /// Stops a run after each of its `steps`; fails unless it goes on where it stopped and ends in the same bytes as one that
    /// nothing stopped.
    pub fn expect_resumed(&self, unit: &Unit, steps: u64) {
        let id = self.run(unit).unwrap();
        let undisturbed = self.files(&id);
        self.forget(&id);
        let weights = self.weights();
        let mut stops = 0;
        loop {
            let mut first = None;
            let ending = trainer::run(unit, &self.settings(&weights), &mut |done, total| {
                assert_eq!(total, steps);
                first.get_or_insert(done);
                ControlFlow::Break(())
            })
            .unwrap();
            match ending {
                Ending::Stopped => {
                    stops += 1;
                    assert_eq!(first, Some(stops));
                }
                Ending::Done(_) => break,
            }
        }
        assert_eq!(stops, steps);
        assert!(undisturbed == self.files(&id));
    }
}

/// A vision transformer of four patches, two layers and two heads.
pub fn small_vit() -> VisionTransformerConfig {
    VisionTransformerConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}

pub fn dataset() -> DatasetId {
    DatasetId::try_from("toy".to_owned()).unwrap()
}

pub fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub fn unit(spec: StageSpec, inputs: &[(&str, &ArtifactId)]) -> Unit {
    let inputs = inputs.iter().map(|(name, id)| ((*name).to_owned(), (*id).clone())).collect();
    Unit { spec, inputs }
}

pub fn write<R: Row>(store: &Store, unit: Unit, rows: &[R], tensor_shape: &[usize]) -> ArtifactId {
    let writer = ArtifactWriter::open(store, &unit, 1, FileContext::new("0")).unwrap();
    let info = SchemaInfo {
        class_names: strings(&CLASSES),
        tensor_shape: tensor_shape.to_vec(),
        ..SchemaInfo::default()
    };
    writer.write_part(0, rows, &info).unwrap();
    writer.finish("none", Instant::now()).unwrap();
    unit.output()
}

pub fn images_unit(splits: &[&str]) -> Unit {
    let spec = ImagesSpec {
        dataset: dataset(),
        manifest_digest: Digest::blake3(b"manifest"),
        splits: strings(splits),
        image_size: 24,
        stored: None,
        classes: None,
        num_parts: 1,
    };
    unit(StageSpec::Images(spec), &[])
}

pub fn shots_unit(images: &ArtifactId, seed: u64) -> Unit {
    let spec = FewshotSplitsSpec {
        dataset: dataset(),
        shots: SHOTS,
        seed,
        val_shots: ValShots::MinShots4,
        short_class: ShortClass::TakeAll,
    };
    unit(StageSpec::FewshotSplits(spec), &[("images", images)])
}

pub fn prompts_unit(templates: &[&str]) -> Unit {
    let provider = PromptProvider::Templates { templates: strings(templates) };
    let spec = PromptsSpec { dataset: dataset(), manifest_digest: Digest::blake3(b"manifest"), provider };
    unit(StageSpec::Prompts(spec), &[])
}

pub fn latents_unit(prompts: &ArtifactId) -> Unit {
    let spec = LatentsSpec {
        dataset: dataset(),
        checkpoint: CheckpointRef { id: "tiny-sd".to_owned(), digest: Digest::blake3(b"sd") },
        samples_per_prompt: GENERATED_PER_CLASS,
        scheduler: Scheduler::Ddim,
        num_inference_steps: 1,
        guidance_scale: 1.0,
        negative_prompt: String::new(),
        seed: 1,
        num_parts: 1,
        options: None,
        selection: None,
    };
    unit(StageSpec::Latents(spec), &[("prompts", prompts)])
}

/// A picture whose colour tells the class and whose pattern tells the index.
fn picture(class: u32, index: u32, generated: bool) -> Vec<u8> {
    let image = RgbImage::from_fn(24, 20, |x, y| {
        let mut pixel = [30u8; 3];
        pixel[class as usize] = 200;
        let wave = ((x * (index + 1) + y * 3 + u32::from(generated)) % 7) as u8 * 5;
        Rgb(pixel.map(|v| v + wave))
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn sample_id(split: &str, class: u32, index: u32) -> String {
    format!("{split}-{class}-{index}")
}

pub fn image_rows() -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for class in 0..CLASSES.len() as u32 {
        for (split, count) in [("train", TRAIN_PER_CLASS), ("val", VAL_PER_CLASS), ("test", 2)] {
            for index in 0..count {
                let bytes = match split {
                    "test" => b"\x89PNG\r\n\x1a\nnot a picture".to_vec(),
                    _ => picture(class, index + if split == "val" { 50 } else { 0 }, false),
                };
                rows.push(ImageRow {
                    sample_id: sample_id(split, class, index),
                    split: split.to_owned(),
                    label: Some(class),
                    class_name: Some(CLASSES[class as usize].to_owned()),
                    caption: None,
                    source: "test".to_owned(),
                    image: ImageFile { bytes, path: "picture.png".to_owned() },
                });
            }
        }
    }
    rows
}

/// A list whose training images are named as those of split `from`.
pub fn shot_rows(from: &str) -> Vec<FewshotRow> {
    let mut rows = Vec::new();
    for (split, from, count) in [("train", from, SHOTS), ("val", "val", VAL_PER_CLASS)] {
        let mut order = 0;
        for class in 0..CLASSES.len() as u32 {
            for index in 0..count {
                rows.push(FewshotRow {
                    sample_id: sample_id(from, class, index),
                    label: class,
                    split: split.to_owned(),
                    shots: SHOTS,
                    seed: 1,
                    order,
                });
                order += 1;
            }
        }
    }
    rows
}

fn prompt_rows() -> Vec<PromptRow> {
    let row = |class: usize| PromptRow {
        class_id: class as u32,
        class_name: CLASSES[class].to_owned(),
        prompt_index: 0,
        prompt: format!("a {}", CLASSES[class]),
        template: "a {}".to_owned(),
        provider: "templates".to_owned(),
        model: String::new(),
        answer: None,
    };
    (0..CLASSES.len()).map(row).collect()
}

/// Prompts of the classes in order, each class with its own.
pub fn prompt_rows_of(prompts: [&[&str]; CLASSES.len()]) -> Vec<PromptRow> {
    let row = |(class, index): (usize, usize)| PromptRow {
        class_id: class as u32,
        class_name: CLASSES[class].to_owned(),
        prompt_index: index as u32,
        prompt: prompts[class][index].to_owned(),
        template: String::new(),
        provider: "file".to_owned(),
        model: String::new(),
        answer: None,
    };
    let positions = (0..CLASSES.len()).flat_map(|class| (0..prompts[class].len()).map(move |i| (class, i)));
    positions.map(row).collect()
}

/// Latents of 4 x 8 x 8, times `factor`.
pub fn latent_rows(factor: f32) -> Vec<LatentRow> {
    let mut rows = Vec::new();
    for class in 0..CLASSES.len() as u32 {
        for sample in 0..GENERATED_PER_CLASS {
            let value = |i: u32| ((i * 13 + class * 29 + sample * 7) % 17) as f32 * 0.25 - 2.0;
            let latent: Vec<f32> = (0..4 * 8 * 8).map(|i| value(i) * factor).collect();
            rows.push(LatentRow {
                class_id: class,
                class_name: CLASSES[class as usize].to_owned(),
                prompt_index: 0,
                sample_index: sample,
                prompt: format!("a {}", CLASSES[class as usize]),
                noise_seed: 1,
                mean: 0.0,
                std: 1.0,
                latent,
                image_png: picture(class, sample, true),
                image_path: "sample.png".to_owned(),
                clip_score: None,
            });
        }
    }
    rows
}

fn write_weights(folder: &Path, device: &Device) {
    device.seed(3);
    let texts: Vec<String> = CLASSES.iter().map(|name| format!("an icon of a {name}")).collect();
    let tokenizer = train_bpe(&texts, 530);
    let text_config = TextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 24,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: tokenizer.eos_token_id(),
        bos_token_id: tokenizer.bos_token_id(),
    };
    let vit = small_vit();
    let resnet = ModifiedResNetConfig { layers: [1, 1, 1, 1], width: 4, heads: 2, image_size: 32 };
    for (id, vision_config, size) in
        [(VIT, VisionConfig::VisionTransformer(vit), 16), (RESNET, VisionConfig::ModifiedResNet(resnet), 32)]
    {
        let dir = folder.join(id);
        std::fs::create_dir_all(&dir).unwrap();
        let config = ClipConfig {
            text_config: text_config.clone(),
            vision_config,
            projection_dim: 12,
            logit_scale_init_value: 2.6592,
        };
        config.init(device).save_to_folder(&config, &dir, SaveDtype::F32).unwrap();
        tokenizer.save_to_folder(&dir).unwrap();
        Preprocess::new(size).save(&dir).unwrap();
    }
}

/// Two epochs on three batches of the real and of the generated samples.
pub fn fine_tune_spec() -> FineTuneSpec {
    FineTuneSpec {
        generated: GeneratedUse::ImagesAndLatents {
            per_class: None,
            latent_factor: 0.5,
            control: None,
            latent_scale: None,
        },
        coupling: Coupling::Independent,
        latent_trainable: true,
        schedule: Schedule::Alternate,
        head_init: HeadInit::NearZero,
        pool: Pool::MeanPatch,
        freeze: Freeze::PatchConv,
        select: Select::Last,
        augment: Augment::CropFlip { scale_min: 0.5 },
        optimizer: OptimizerSpec {
            epochs: 2,
            warmup_epochs: 1,
            batch_size: 2,
            micro_batch_size: None,
            learning_rate: 1e-3,
            min_learning_rate: 1e-6,
            weight_decay: 0.05,
            layer_decay: 0.7,
        },
        label_smoothing: 0.1,
        ema_decay: Some(0.9),
    }
}
