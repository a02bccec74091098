//! The stage from prompts to latents on disk, with a tiny Stable Diffusion of random weights.

mod binary;
mod encoded;
mod gallery;
mod options;
mod processes;
mod sample;
mod tiny;

use std::ops::ControlFlow;
use std::path::Path;

use artifacts::{ArtifactReader, LatentRow, Outcome, Shard};
use backend::DeviceSpec;
use pipeline_spec::{Store, Unit};
use sd_latents::sheet::Show;
use sd_latents::{Ending, Progress, Settings};

const PROMPTS: [(u32, &str); 3] = [(0, "a photo of a cat"), (0, "a cat"), (1, "a photo of a sea lion")];

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::save_model(&folder.path().join("weights"));
        Self { folder }
    }

    fn weights(&self) -> std::path::PathBuf {
        self.folder.path().join("weights")
    }

    fn store(&self, name: &str) -> Store {
        Store::new(self.folder.path().join(name))
    }

    /// A store of that name with the prompts in it, and the unit that reads them.
    fn unit(&self, name: &str, prompts: &[(u32, &str)], num_parts: u32) -> (Store, Unit) {
        let store = self.store(name);
        let prompts = tiny::save_prompts(&store, prompts);
        (store, tiny::unit(&self.weights(), &prompts, num_parts))
    }
}

fn run_with(
    unit: &Unit,
    store: &Store,
    weights: &Path,
    shard: Shard,
    batch: usize,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Ending, sd_latents::Error> {
    let device = DeviceSpec::Cpu.open().unwrap();
    let settings = Settings { store, weights, shard, batch, device: &device, device_name: "cpu" };
    sd_latents::run(unit, &settings, progress)
}

fn run(
    unit: &Unit,
    store: &Store,
    weights: &Path,
    shard: Shard,
    batch: usize,
) -> Result<Ending, sd_latents::Error> {
    run_with(unit, store, weights, shard, batch, &mut |_| ControlFlow::Continue(()))
}

/// Digests of the parts; panics unless the artifact is finished.
fn parts(store: &Store, unit: &Unit) -> Vec<String> {
    store.record(&unit.output()).unwrap().parts.iter().map(|p| p.blake3.to_string()).collect()
}

#[test]
fn shards_batches_and_restarts_do_not_change_a_byte() {
    let place = Place::new();
    let weights = place.weights();
    let (store, unit) = place.unit("whole", &PROMPTS, 4);
    run(&unit, &store, &weights, Shard::default(), 4).unwrap();
    let expected = parts(&store, &unit);
    assert_eq!(expected.len(), 4);

    for batch in [1, 2, 5] {
        let (store, unit) = place.unit(&format!("batch{batch}"), &PROMPTS, 4);
        run(&unit, &store, &weights, Shard::default(), batch).unwrap();
        assert_eq!(parts(&store, &unit), expected, "batch {batch}");
    }

    let (store, unit) = place.unit("sharded", &PROMPTS, 4);
    for index in [2, 0, 1] {
        let shard = Shard::new(index, 3).unwrap();
        let ending = run(&unit, &store, &weights, shard, 4).unwrap();
        let is_last = index == 1;
        assert_eq!(matches!(ending, Ending::Done(Outcome::Finished(_))), is_last, "{ending:?}");
    }
    assert_eq!(parts(&store, &unit), expected, "three shards");

    let (store, unit) = place.unit("restarted", &PROMPTS, 4);
    let mut stop_in_third_part =
        |p: Progress| if p.done >= 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let ending = run_with(&unit, &store, &weights, Shard::default(), 1, &mut stop_in_third_part).unwrap();
    assert_eq!(ending, Ending::Stopped);
    assert!(!store.contains(&unit.output()));
    assert_eq!(
        std::fs::read_dir(store.data_dir(&unit.output())).unwrap().count(),
        2,
        "two parts were finished"
    );
    let mut first = None;
    let mut note_first = |p: Progress| {
        first.get_or_insert(p);
        ControlFlow::Continue(())
    };
    run_with(&unit, &store, &weights, Shard::default(), 4, &mut note_first).unwrap();
    assert_eq!(first, Some(Progress { done: 0, total: 6 }), "finished parts are skipped");
    assert_eq!(parts(&store, &unit), expected, "restarted");
}

#[test]
fn rows_are_in_order_and_hold_what_they_say() {
    let place = Place::new();
    let (store, unit) = place.unit("store", &PROMPTS, 2);
    run(&unit, &store, &place.weights(), Shard::default(), 3).unwrap();
    let reader = ArtifactReader::open(&store, &unit.output()).unwrap();
    let rows = reader.rows::<LatentRow>().unwrap();
    assert_eq!(reader.tensor_shape().unwrap(), [4, 8, 8]);
    let order: Vec<_> = rows.iter().map(|r| (r.class_id, r.prompt_index, r.sample_index)).collect();
    let expected: Vec<_> =
        [(0, 0), (0, 1), (1, 0)].iter().flat_map(|&(c, p)| (0..4).map(move |s| (c, p, s))).collect();
    assert_eq!(order, expected);
    for row in &rows {
        let image = image::load_from_memory(&row.image_png).unwrap();
        assert_eq!((image.width(), image.height()), (16, 16));
        let mean = row.latent.iter().sum::<f32>() / row.latent.len() as f32;
        // Sums in another order differ by a few units in the last place of 256 numbers near 1.
        assert!((mean - row.mean).abs() < 1e-5 && row.std > 0.0);
    }
    assert_ne!(rows[0].latent, rows[1].latent);
    assert_eq!(rows[8].image_path, "sea_lion-000-000.png");

    let sheet = place.folder.path().join("sheet.png");
    let all = Show { part: None, per_class: 3, tile: 128 };
    sd_latents::sheet::show(&store, &unit.output(), all, &sheet).unwrap();
    let sheet = image::open(sheet).unwrap();
    // Six tiles of 16 pixels and gaps of 4 on each of two lines.
    assert_eq!((sheet.width(), sheet.height()), (124, 44));

    let path = place.folder.path().join("part.png");
    let part = Show { part: Some(1), per_class: 9, tile: 8 };
    sd_latents::sheet::show(&store, &unit.output(), part, &path).unwrap();
    let sheet = image::open(path).unwrap();
    // Two samples of the first class, four of the second; tiles of 8 pixels.
    assert_eq!((sheet.width(), sheet.height()), (4 + 8 * 12, 4 + 2 * 12));
    let missing = Show { part: Some(2), ..part };
    let error = sd_latents::sheet::show(&store, &unit.output(), missing, &place.folder.path().join("x.png"));
    assert!(error.unwrap_err().to_string().contains("no committed part 2"));
}

#[test]
fn a_prompt_that_does_not_fit_names_class_and_prompt() {
    let place = Place::new();
    let long = "a photo of a very small and very grey cat that sleeps";
    let (store, unit) = place.unit("store", &[(0, "a cat"), (0, long), (1, "a sea lion")], 1);
    let message = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    let limit = format!("takes {}", tiny::CONTEXT_LENGTH);
    for part in ["class `cat`, prompt 1", long, limit.as_str()] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn another_checkpoint_is_refused_by_digest() {
    let place = Place::new();
    let (store, unit) = place.unit("store", &PROMPTS, 1);
    let config = place.weights().join(tiny::CHECKPOINT).join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("epsilon", "v_prediction")).unwrap();
    let message = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    assert!(message.contains("tiny-sd") && message.contains("checkpoint.digest"), "{message}");
    assert!(!store.contains(&unit.output()));
}

#[test]
fn bad_settings_are_refused_before_anything_is_written() {
    let place = Place::new();
    let (store, unit) = place.unit("store", &PROMPTS, 13);
    let message = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    assert!(message.contains("`num_parts`: expected at most 12"), "{message}");
    let (store, unit) = place.unit("store", &PROMPTS, 1);
    let message = run(&unit, &store, &place.weights(), Shard::default(), 0).unwrap_err().to_string();
    assert!(message.contains("`--batch`"), "{message}");
    let unit = tiny::changed(&unit, |spec| spec.num_inference_steps = 1000);
    let message = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    assert!(message.contains("num_inference_steps"), "{message}");
}
