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
