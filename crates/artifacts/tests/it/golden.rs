//! Files of every schema version are read for ever. `examples/write_golden.rs` wrote them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use artifacts::{Part, Row, SchemaInfo, read_part};
use pipeline_spec::{Key, PartRecord};

use crate::rows;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check<R: Row + PartialEq + Debug>(
    golden: &BTreeMap<String, (Key, PartRecord)>,
    rows: &[R],
    info: &SchemaInfo,
) {
    let (key, part) = &golden[R::KIND.name()];
    let Part { rows: found, class_names, tensor_shape, metadata } =
        read_part::<R>(&folder(), part, key).unwrap();
    assert_eq!(found, rows, "{}", R::KIND);
    assert_eq!(
        (class_names, tensor_shape),
        (info.class_names.clone(), info.tensor_shape.clone()),
        "{}",
        R::KIND
    );
    assert_eq!(metadata["flier.note"], "golden");
}

#[test]
fn files_of_schema_version_1_are_read() {
    let json = std::fs::read(folder().join("golden-v1.json")).unwrap();
    let golden = serde_json::from_slice(&json).unwrap();
    check(&golden, &rows::prompts(), &rows::class_info());
    check(&golden, &rows::latents(), &rows::tensor_info(&[2, 2, 3]));
    check(&golden, &rows::images(), &rows::class_info());
    check(&golden, &rows::fewshot(), &rows::class_info());
    check(&golden, &rows::features(), &rows::tensor_info(&[5]));
    check(&golden, &rows::predictions(), &rows::tensor_info(&[3]));
    check(&golden, &rows::metrics(), &SchemaInfo::default());
}

/// A column that only some parts have must not change the parts without it.
#[test]
fn prompts_without_answers_have_the_bytes_that_they_had_before_answers_had_columns() {
    let store = crate::store::TempStore::new();
    let unit = rows::unit(pipeline_spec::ArtifactKind::Prompts);
    let context = artifacts::FileContext::new("any").with("note", "golden");
    let writer = artifacts::ArtifactWriter::open(&store.store, &unit, 1, context).unwrap();
    let part = writer.write_part(0, &rows::prompts(), &rows::class_info()).unwrap();
    let written = std::fs::read(store.store.data_dir(writer.id()).join(part.file)).unwrap();
    assert!(written == std::fs::read(folder().join("prompts-v1.parquet")).unwrap());
}
