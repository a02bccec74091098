//! Writes one tiny part per artifact kind to `tests/golden/`, for the schema versions of this build:
//! `cargo run --release -p artifacts --example write_golden`.
//!
//! Run it once when a schema version is new. Files of older versions stay as they are: they must be read for ever.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use artifacts::{ArtifactWriter, FileContext, Row, SchemaInfo};
use pipeline_spec::{PartRecord, Store};

#[path = "../tests/it/rows.rs"]
mod rows;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let scratch = tempfile::tempdir()?;
    let mut golden = BTreeMap::new();
    write(scratch.path(), &folder, &rows::prompts(), &rows::class_info(), &mut golden)?;
    write(scratch.path(), &folder, &rows::latents(), &rows::tensor_info(&[2, 2, 3]), &mut golden)?;
    write(scratch.path(), &folder, &rows::images(), &rows::class_info(), &mut golden)?;
    write(scratch.path(), &folder, &rows::fewshot(), &rows::class_info(), &mut golden)?;
    write(scratch.path(), &folder, &rows::features(), &rows::tensor_info(&[5]), &mut golden)?;
    write(scratch.path(), &folder, &rows::predictions(), &rows::tensor_info(&[3]), &mut golden)?;
    write(scratch.path(), &folder, &rows::metrics(), &SchemaInfo::default(), &mut golden)?;
    let mut json = serde_json::to_string_pretty(&golden)?;
    json.push('\n');
    fs::write(folder.join("golden-v1.json"), json)?;
    Ok(())
}

fn write<R: Row>(
    store: &Path,
    folder: &Path,
    rows: &[R],
    info: &SchemaInfo,
    golden: &mut BTreeMap<String, (String, PartRecord)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let unit = rows::unit(R::KIND);
    let store = Store::new(store);
    let writer = ArtifactWriter::open(&store, &unit, 1, FileContext::new("0.1.0").with("note", "golden"))?;
    let mut part = writer.write_part(0, rows, info)?;
    let name = format!("{}-v{}.parquet", R::KIND, R::KIND.schema_version());
    fs::copy(store.data_dir(writer.id()).join(&part.file), folder.join(&name))?;
    part.file = name;
    golden.insert(R::KIND.to_string(), (writer.id().key.to_string(), part));
    Ok(())
}
