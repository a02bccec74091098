//! The key of an artifact.

use std::collections::BTreeMap;

use crate::{Key, StageSpec};

/// Key of what `spec` yields from inputs with the given keys.
///
/// BLAKE3 over JSON with sorted fields of: kind, schema version, `CODE_VERSION`, the spec (which holds the digests of
/// manifests and checkpoints) and the keys of the inputs. Numbers are written as their shortest text that reads back
/// equal. Paths, hosts, devices and library versions take no part.
pub fn key_of(spec: &StageSpec, inputs: &BTreeMap<String, Key>) -> Key {
    let description = serde_json::json!({
        "kind": spec.kind().name(),
        "schema_version": spec.kind().schema_version(),
        "code_version": spec.code_version(),
        "spec": spec,
        "inputs": inputs,
    });
    let hex = blake3::hash(description.to_string().as_bytes()).to_hex();
    Key::try_from(hex[..32].to_owned()).expect("a BLAKE3 digest is hexadecimal")
}
