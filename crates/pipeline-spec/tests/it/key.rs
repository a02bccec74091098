//! What changes a key, and what does not.

use pipeline_spec::{ArtifactId, StageSpec, Unit};
use serde_json::Value;

use crate::fixture::Fixture;

/// Calls `visit` with every version of `value` in which one leaf is another number, text or truth value.
fn each_changed_leaf(value: &Value, rebuild: &dyn Fn(Value) -> Value, visit: &mut dyn FnMut(Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let rebuild = |new: Value| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), new);
                    rebuild(Value::Object(fields))
                };
                each_changed_leaf(field, &rebuild, visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let rebuild = |new: Value| {
                    let mut items = items.clone();
                    items[index] = new;
                    rebuild(Value::Array(items))
                };
                each_changed_leaf(item, &rebuild, visit);
            }
        }
        Value::Number(n) if n.is_f64() => visit(rebuild((n.as_f64().unwrap() * 0.5).into())),
        Value::Number(n) => visit(rebuild((n.as_u64().unwrap() + 1).into())),
        Value::String(text) if text.len() == 64 => visit(rebuild("0".repeat(64).into())),
        Value::String(text) => visit(rebuild(format!("{text}x").into())),
        Value::Bool(truth) => visit(rebuild((!truth).into())),
        Value::Null => {}
    }
}

#[test]
fn every_field_of_every_spec_changes_the_key() {
    let mut changed = 0;
    for planned in Fixture::new().plan().units {
        let spec = serde_json::to_value(&planned.unit.spec).unwrap();
        each_changed_leaf(&spec, &|v| v, &mut |other| {
            // A changed enum value is refused, everything else is another spec and needs another key.
            let Ok(spec) = serde_json::from_value::<StageSpec>(other.clone()) else { return };
            let unit = Unit { spec, inputs: planned.unit.inputs.clone() };
            assert_ne!(unit.output().key, planned.output.key, "{other}");
            changed += 1;
        });
    }
    assert!(changed > 1000, "{changed}");
}

#[test]
fn the_key_of_an_input_changes_the_key() {
    let plan = Fixture::new().plan();
    let planned = plan.units.iter().find(|u| u.unit.inputs.len() == 3).unwrap();
    for name in planned.unit.inputs.keys() {
        let mut unit = planned.unit.clone();
        let input = unit.inputs.get_mut(name).unwrap();
        input.key = "0".repeat(32).try_into().unwrap();
        assert_ne!(unit.output().key, planned.output.key, "{name}");
    }
}

#[test]
fn the_slug_of_an_input_does_not_change_the_key() {
    let plan = Fixture::new().plan();
    let mut unit = plan.units.iter().find(|u| !u.unit.inputs.is_empty()).unwrap().unit.clone();
    let key = unit.output().key;
    unit.inputs.values_mut().for_each(|id| id.slug = "renamed".to_owned());
    assert_eq!(unit.output().key, key);
}

#[test]
fn an_artifact_name_survives_a_round_trip() {
    for planned in Fixture::new().plan().units {
        let text = planned.output.to_string();
        assert_eq!(text.parse::<ArtifactId>().unwrap(), planned.output);
    }
}

#[test]
fn a_name_that_leaves_the_store_is_refused() {
    for text in [
        "images-v1/../evil-0123456789abcdef0123456789abcdef",
        "images-v1/toys/../../evil-0123456789abcdef0123456789abcdef",
        "/images-v1/toys/a-0123456789abcdef0123456789abcdef",
        "images-v2/toys/a-0123456789abcdef0123456789abcdef",
        "images-v1/toys/a-0123",
        "images-v1/toys/a-0123456789ABCDEF0123456789abcdef",
        "",
    ] {
        let message = text.parse::<ArtifactId>().unwrap_err().to_string();
        assert!(message.contains("expected"), "{text}: {message}");
    }
}

#[test]
fn a_key_is_the_same_on_every_machine_and_in_every_build() {
    // Guards the canonical form: sorted JSON fields, shortest numbers. A change here loses every cached artifact.
    let unit: Unit = toml::from_str(
        r#"
        inputs = { prompts = "prompts-v1/toys/templates-1-00112233445566778899aabbccddeeff" }
        [spec]
        kind = "latents"
        [spec.spec]
        dataset = "toys"
        checkpoint = { id = "sd", digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
        samples_per_prompt = 2
        scheduler = "ddim"
        num_inference_steps = 4
        guidance_scale = 7.5
        negative_prompt = ""
        seed = 7
        num_parts = 3
        "#,
    )
    .unwrap();
    let description = concat!(
        r#"{"code_version":2,"inputs":{"prompts":"00112233445566778899aabbccddeeff"},"kind":"latents","#,
        r#""schema_version":1,"spec":{"kind":"latents","spec":{"checkpoint":{"digest":"#,
        r#""0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","id":"sd"},"dataset":"toys","#,
        r#""guidance_scale":7.5,"negative_prompt":"","num_inference_steps":4,"num_parts":3,"samples_per_prompt":2,"#,
        r#""scheduler":"ddim","seed":7}}}"#,
    );
    let expected = pipeline_spec::Digest::blake3(description.as_bytes());
    assert_eq!(unit.output().key.as_str(), &expected.as_str()[..32]);
}
