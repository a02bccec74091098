//! One pass over 10,000 latents [4, 64, 64] of f16 precision with their images, written or read, timed whenever a line arrives.
//!
//! `cargo xtask bench artifacts` runs it beside `tests/scale/time_artifacts.py`, which makes the same rows.
//! The protocol is in `passes/mod.rs`.

#[path = "../../clip-model/examples/passes/mod.rs"]
mod passes;

use std::time::Instant;

use anyhow::{Context, bail};
use artifacts::{
    ArtifactReader, ArtifactWriter, FileContext, LatentRow, RowReader, SchemaInfo, Shard, round_to_f16,
};
use pipeline_spec::{ArtifactId, Store, Unit};
use rayon::prelude::*;

const NUM_ROWS: u32 = 10_000;
const NUM_PARTS: u32 = 5;
const NUM_CLASSES: u32 = 100;
const SHAPE: [usize; 3] = [4, 64, 64];
/// Rows of a pass of single rows.
const NUM_SINGLE: u64 = 100;

fn main() -> anyhow::Result<()> {
    let case = std::env::args().nth(1).context("expected `write`, `read` or `row`")?;
    let folder = tempfile::tempdir()?;
    let unit = unit()?;
    let store = |name: &str| Store::new(folder.path().join(name));
    if case == "write" {
        let rows = rows();
        let mut pass = 0;
        return passes::serve(1, || {
            pass += 1;
            let store = store(&pass.to_string());
            write(&store, &unit, &rows)?;
            Ok(std::fs::remove_dir_all(store.root())?)
        });
    }
    let store = store("store");
    write(&store, &unit, &rows())?;
    let id = unit.output();
    match case.as_str() {
        "read" => passes::serve(1, || {
            let rows = ArtifactReader::open(&store, &id)?.rows::<LatentRow>()?;
            assert_eq!(rows.len(), NUM_ROWS as usize);
            Ok(())
        }),
        "row" => {
            let parts = parts(&store, &id)?;
            let mut row = 0;
            passes::serve(1, || {
                for _ in 0..NUM_SINGLE {
                    row = (row + 7919) % u64::from(NUM_ROWS);
                    let per_part = u64::from(NUM_ROWS / NUM_PARTS);
                    let found =
                        parts[(row / per_part) as usize].row(row % per_part)?.context("a row is missing")?;
                    assert_eq!(u64::from(found.sample_index), row);
                }
                Ok(())
            })
        }
        other => bail!("no case `{other}`"),
    }
}

fn parts(store: &Store, id: &ArtifactId) -> anyhow::Result<Vec<RowReader<LatentRow>>> {
    let reader = ArtifactReader::open(store, id)?;
    (0..NUM_PARTS as usize).map(|index| reader.open_part(index)?.context("a part is missing")).collect()
}

fn write(store: &Store, unit: &Unit, rows: &[LatentRow]) -> anyhow::Result<()> {
    let writer = ArtifactWriter::open(store, unit, NUM_PARTS, FileContext::new("bench"))?;
    let class_names = (0..NUM_CLASSES).map(|class| format!("class {class}")).collect();
    let info = SchemaInfo { class_names, tensor_shape: SHAPE.to_vec(), ..SchemaInfo::default() };
    let per_part = (NUM_ROWS / NUM_PARTS) as usize;
    writer.missing_parts(Shard::default()).into_par_iter().try_for_each(|part| {
        writer.write_part(part, &rows[part as usize * per_part..][..per_part], &info).map(drop)
    })?;
    writer.finish("none", Instant::now())?;
    Ok(())
}

fn unit() -> anyhow::Result<Unit> {
    let digest = "0".repeat(64);
    let spec = serde_json::json!({ "kind": "latents", "spec": { "dataset": "bench",
        "checkpoint": { "id": "none", "digest": digest }, "samples_per_prompt": 1, "scheduler": "ddim",
        "num_inference_steps": 1, "guidance_scale": 1.0, "negative_prompt": "", "seed": 1, "num_parts": NUM_PARTS } });
    Ok(serde_json::from_value(serde_json::json!({ "spec": spec, "inputs": {} }))?)
}

/// The same numbers as `splitmix` of the script.
fn splitmix(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// About standard normal: the sum of four uniform numbers.
fn latent(row: u64) -> Vec<f32> {
    let numel: usize = SHAPE.iter().product();
    let value = |index: u64| {
        let bits = splitmix(index);
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f32 - 131_070.0) / 37_837.0
    };
    let mut values: Vec<f32> = (0..numel as u64).map(|index| value(row * numel as u64 + index)).collect();
    round_to_f16(&mut values);
    values
}

/// A PNG's first bytes and 24 to 40 KiB that do not compress, as a PNG's do not.
fn image(row: u64) -> Vec<u8> {
    let words = 3072 + splitmix(row) % 2048;
    let noise = (0..words).flat_map(|word| splitmix(row << 20 | word).to_le_bytes());
    b"\x89PNG\r\n\x1a\n".iter().copied().chain(noise).collect()
}

fn rows() -> Vec<LatentRow> {
    let row = |row: u32| LatentRow {
        class_id: row / (NUM_ROWS / NUM_CLASSES),
        class_name: format!("class {}", row / (NUM_ROWS / NUM_CLASSES)),
        prompt_index: 0,
        sample_index: row,
        prompt: format!("prompt of row {row}"),
        noise_seed: u64::from(row),
        latent: latent(row.into()),
        mean: 0.0,
        std: 1.0,
        image_png: image(row.into()),
        image_path: format!("{row}.png"),
        clip_score: None,
    };
    (0..NUM_ROWS).map(row).collect()
}
