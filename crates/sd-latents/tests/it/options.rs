//! Samplers, number types, kept steps, long prompts and selection.

use std::ops::ControlFlow;

use artifacts::{ArtifactReader, LatentRow, Shard};
use backend::DeviceSpec;
use burn::tensor::{Tensor, TensorData};
use clip_model::{Checkpoint, DecodedImage, Tokenizer, normalize};
use pipeline_spec::spec::{HalfType, LatentsOptions, LongPrompts, Scheduler, SelectionSpec, TimestepSpacing};
use pipeline_spec::{CheckpointRef, Store, Unit, checkpoint_digest};

use crate::{PROMPTS, Place, parts, run, tiny};

fn rows(store: &Store, unit: &Unit) -> Vec<LatentRow> {
    ArtifactReader::open(store, &unit.output()).unwrap().rows::<LatentRow>().unwrap()
}

/// A store of that name with the prompts, and the unit with its spec changed.
fn unit(
    place: &Place,
    name: &str,
    change: impl FnOnce(&mut pipeline_spec::spec::LatentsSpec),
) -> (Store, Unit) {
    let (store, unit) = place.unit(name, &PROMPTS, 2);
    (store, tiny::changed(&unit, change))
}

fn latents(
    place: &Place,
    name: &str,
    change: impl FnOnce(&mut pipeline_spec::spec::LatentsSpec),
) -> Vec<LatentRow> {
    let (store, unit) = unit(place, name, change);
    run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap();
    rows(&store, &unit)
}

fn distance(a: &[LatentRow], b: &[LatentRow]) -> f32 {
    assert_eq!(a.len(), b.len());
    let values = |rows: &[LatentRow]| rows.iter().flat_map(|r| r.latent.clone()).collect::<Vec<_>>();
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
#[allow(clippy::print_stderr)]
fn every_sampler_draws_the_same_in_any_batch_shard_and_order() {
    let place = Place::new();
    let mut seen: Vec<Vec<LatentRow>> = Vec::new();
    for scheduler in Scheduler::ALL {
        let with = |spec: &mut pipeline_spec::spec::LatentsSpec| {
            spec.scheduler = scheduler;
            spec.options = (scheduler == Scheduler::Ddim)
                .then(|| LatentsOptions { eta: Some(0.5), ..LatentsOptions::default() });
        };
        let name = scheduler.name();
        let (store, whole) = unit(&place, name, with);
        run(&whole, &store, &place.weights(), Shard::default(), 4).unwrap();
        let expected = rows(&store, &whole);
        for batch in [1, 2, 5] {
            let (store, unit) = unit(&place, &format!("{name}-{batch}"), with);
            run(&unit, &store, &place.weights(), Shard::default(), batch).unwrap();
            let found = rows(&store, &unit);
            let largest = expected.iter().flat_map(|r| &r.latent).fold(0.0_f32, |m, v| m.max(v.abs()));
            let distance = distance(&found, &expected);
            eprintln!("{name}: batch {batch}: {distance:.1e} from batch 4 (largest value {largest:.1})");
            // Sums in another order differ in the last digits of f32; f16 rounding makes that one step at most.
            assert!(distance <= largest * 2.0_f32.powi(-10), "{name}: {distance}");
        }
        let (store, sharded) = unit(&place, &format!("{name}-sharded"), with);
        for index in [1, 0] {
            run(&sharded, &store, &place.weights(), Shard::new(index, 2).unwrap(), 4).unwrap();
        }
        assert_eq!(parts(&store, &sharded), parts(&place.store(name), &whole), "{name}: two shards");
        // Samples differ from each other and from those of the other samplers.
        assert!(expected[0].latent != expected[1].latent && expected[0].latent != expected[4].latent);
        assert!(seen.iter().all(|other| distance(other, &expected) > 1e-2), "{name}");
        seen.push(expected);
    }
}

#[test]
fn options_change_what_is_drawn() {
    let place = Place::new();
    let mut number = 0;
    let mut draw = |scheduler: Scheduler, options: LatentsOptions| {
        number += 1;
        latents(&place, &number.to_string(), |spec| {
            spec.scheduler = scheduler;
            spec.options = (options != LatentsOptions::default()).then_some(options);
        })
    };
    let none = LatentsOptions::default;
    let plain = draw(Scheduler::DpmSolverMultistep, none());
    let karras = LatentsOptions { use_karras_sigmas: Some(true), ..none() };
    let spacing = LatentsOptions { timestep_spacing: Some(TimestepSpacing::Trailing), ..none() };
    let rescale = LatentsOptions { guidance_rescale: Some(0.7), ..none() };
    for options in [karras, spacing, rescale] {
        assert!(
            distance(&draw(Scheduler::DpmSolverMultistep, options.clone()), &plain) > 1e-3,
            "{options:?}"
        );
    }
    let plain = draw(Scheduler::Ddim, none());
    let largest = plain.iter().flat_map(|r| &r.latent).fold(0.0_f32, |m, v| m.max(v.abs()));
    for (dtype, bound) in [(HalfType::Bf16, 0.05), (HalfType::F16, 0.01)] {
        let found = draw(Scheduler::Ddim, LatentsOptions { dtype: Some(dtype), ..none() });
        let distance = distance(&found, &plain) / largest;
        // Relative rounding of 2^-9 and 2^-12 in each layer, magnified by guidance.
        assert!(distance > 0.0 && distance < bound, "{dtype:?}: {distance}");
    }
}

#[test]
fn kept_steps_are_stacked_and_end_in_the_final_latent() {
    let place = Place::new();
    for scheduler in [Scheduler::Ddim, Scheduler::Euler] {
        let last = latents(&place, &format!("{}-last", scheduler.name()), |spec| spec.scheduler = scheduler);
        let (store, unit) = unit(&place, &format!("{}-steps", scheduler.name()), |spec| {
            spec.scheduler = scheduler;
            spec.options =
                Some(LatentsOptions { latent_steps: Some(vec![1, 3]), ..LatentsOptions::default() });
        });
        run(&unit, &store, &place.weights(), Shard::default(), 3).unwrap();
        let reader = ArtifactReader::open(&store, &unit.output()).unwrap();
        assert_eq!(reader.tensor_shape().unwrap(), [8, 8, 8]);
        for (row, last) in rows(&store, &unit).iter().zip(&last) {
            let (first, end) = row.latent.split_at(256);
            let gap = end.iter().zip(&last.latent).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Another batch: one step of f16 at most.
            let largest = end.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(gap <= largest * 2.0_f32.powi(-10) && first != end, "{gap}");
            assert_eq!(row.image_path, last.image_path);
        }
    }
}

#[test]
fn a_long_prompt_is_cut_and_recorded_where_the_spec_says_so() {
    let place = Place::new();
    let long = "a photo of a very small and very grey cat that sleeps";
    let (store, unit) = place.unit("store", &[(0, "a cat"), (0, long), (1, "a sea lion")], 3);
    let unit = tiny::changed(&unit, |spec| {
        let long_prompts = Some(LongPrompts::Truncate);
        spec.options = Some(LatentsOptions { long_prompts, ..LatentsOptions::default() });
    });
    run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap();
    let record = store.record(&unit.output()).unwrap();
    let truncated: Vec<Option<String>> = record
        .parts
        .iter()
        .map(|part| {
            let part =
                artifacts::read_part::<LatentRow>(&store.data_dir(&record.id), part, &record.id.key).unwrap();
            part.metadata.get("flier.truncated_prompts").cloned()
        })
        .collect();
    assert_eq!((&truncated[0], &truncated[2]), (&None, &None));
    let text = truncated[1].clone().unwrap();
    let [cut] = &serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap()[..] else { panic!("{text}") };
    assert_eq!((&cut["class_id"], &cut["prompt_index"]), (&0.into(), &1.into()));
    assert!(cut["num_tokens"].as_u64().unwrap() > tiny::CONTEXT_LENGTH as u64, "{text}");
    assert_eq!(rows(&store, &unit)[4].prompt, long, "the row keeps the whole prompt");
}

#[test]
fn a_latent_that_is_not_finite_names_the_row() {
    let place = Place::new();
    let (store, unit) = unit(&place, "store", |spec| spec.guidance_scale = 1e30);
    let message = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    for part in
        ["class `cat`, prompt 0, sample 0", "expected finite numbers", "nothing of the part was written"]
    {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(std::fs::read_dir(store.data_dir(&unit.output())).unwrap().count(), 0);
}

fn selection(place: &Place, keep_per_class: u32) -> SelectionSpec {
    let digest = checkpoint_digest(&place.weights().join(tiny::CLIP)).unwrap();
    let clip = CheckpointRef { id: tiny::CLIP.to_owned(), digest };
    SelectionSpec { clip, template: "a photo of a {}".to_owned(), keep_per_class }
}

#[test]
fn the_best_of_each_class_by_clip_are_kept_with_their_scores() {
    let place = Place::new();
    tiny::save_clip(&place.weights());
    let all = latents(&place, "all", |_| ());
    let (store, unit) = unit(&place, "best", |spec| spec.selection = Some(selection(&place, 3)));
    run(&unit, &store, &place.weights(), Shard::default(), 3).unwrap();
    let best = rows(&store, &unit);

    // Scores anew, in another way: all images of a class at once.
    let device = DeviceSpec::Cpu.open().unwrap();
    let folder = place.weights().join(tiny::CLIP);
    let checkpoint = Checkpoint::open(&folder, None).unwrap();
    let clip = checkpoint.load(&device).unwrap();
    let mut expected = Vec::new();
    for (class, name) in ["cat", "sea lion"].into_iter().enumerate() {
        let of_class: Vec<_> = all.iter().filter(|row| row.class_id == class as u32).collect();
        let images: Vec<_> = of_class
            .iter()
            .map(|r| DecodedImage::from_bytes(&r.image_png, "x.png".as_ref()).unwrap().into_rgb())
            .collect();
        let images = normalize(clip.image_features(checkpoint.preprocess().pixel_values(&images, &device)));
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        let ids =
            tokenizer.encode_batch(&[format!("a photo of a {name}")], tiny::CONTEXT_LENGTH, false).unwrap();
        let ids = TensorData::new(ids.concat(), [1, tiny::CONTEXT_LENGTH]);
        let text = normalize(clip.text_features(Tensor::from_data(ids, &device)));
        let scores = images.matmul(text.transpose()).try_into_vec_as::<f32>().unwrap();
        let mut ranked: Vec<_> = scores.into_iter().zip(of_class).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.truncate(3);
        ranked.sort_by_key(|(_, row)| (row.prompt_index, row.sample_index));
        expected.extend(ranked);
    }
    assert_eq!(best.len(), 6);
    for (row, (score, same)) in best.iter().zip(expected) {
        assert!((row.clip_score.unwrap() - score).abs() < 1e-5);
        assert_eq!(*row, LatentRow { clip_score: row.clip_score, ..same.clone() });
    }

    // Two parts are two classes, whichever process makes them; three would cut one.
    let (sharded, _) = place.unit("sharded", &PROMPTS, 2);
    for index in [1, 0] {
        run(&unit, &sharded, &place.weights(), Shard::new(index, 2).unwrap(), 3).unwrap();
    }
    assert_eq!(parts(&sharded, &unit), parts(&store, &unit));
    let error = |change: &dyn Fn(&mut pipeline_spec::spec::LatentsSpec)| {
        let unit = tiny::changed(&unit, change);
        run(&unit, &store, &place.weights(), Shard::default(), 3).unwrap_err().to_string()
    };
    let message = error(&|spec| spec.num_parts = 3);
    assert!(message.contains("`num_parts`: expected at most 2, the number of classes"), "{message}");
    let message = error(&|spec| spec.selection = Some(selection(&place, 5)));
    assert!(message.contains("expected at most 4, the samples of class `sea lion`"), "{message}");
}

#[test]
fn without_a_selection_a_part_has_no_score() {
    let place = Place::new();
    let rows = latents(&place, "store", |_| ());
    assert!(rows.iter().all(|row| row.clip_score.is_none()));
    let (store, unit) = place.unit("stopped", &PROMPTS, 2);
    let stop = &mut |_| ControlFlow::Break(());
    let ending = crate::run_with(&unit, &store, &place.weights(), Shard::default(), 1, stop).unwrap();
    assert_eq!(ending, sd_latents::Ending::Stopped);
}
