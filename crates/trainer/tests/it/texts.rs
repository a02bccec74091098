//! The texts of the text classifier.

use pipeline_spec::spec::{ClassTexts, Method};
use pipeline_spec::{ArtifactId, StageSpec};

use crate::fixture::{self, Fixture, VIT, prompt_rows_of, prompts_unit};

/// Weights of the zero-shot classifier with these texts.
fn zero_shot(fixture: &Fixture, class_texts: ClassTexts, prompts: Option<&ArtifactId>) -> Vec<u8> {
    let mut spec = fixture.checkpoints_spec(VIT, Method::ZeroShot);
    (spec.shots, spec.class_texts) = (None, Some(class_texts));
    let prompts = prompts.map(|id| ("prompts", id));
    let inputs: Vec<_> = [("images", &fixture.images)].into_iter().chain(prompts).collect();
    let id = fixture.run(&fixture::unit(StageSpec::Checkpoints(spec), &inputs)).unwrap();
    std::fs::read(fixture.store.artifact_dir(&id).join("data").join("model.safetensors")).unwrap()
}

fn templates(templates: &[&str]) -> ClassTexts {
    ClassTexts::Templates { templates: templates.iter().map(|&t| t.to_owned()).collect() }
}

#[test]
fn prompts_that_spell_the_templates_give_the_same_classifier() {
    let fixture = Fixture::new();
    let rows = prompt_rows_of([
        &["a cat", "an icon of a cat"],
        &["a dog", "an icon of a dog"],
        &["a owl", "an icon of a owl"],
    ]);
    let prompts = fixture::write(&fixture.store, prompts_unit(&["a {}", "an icon of a {}"]), &rows, &[]);
    let by_prompts = zero_shot(&fixture, ClassTexts::Prompts { truncate: false }, Some(&prompts));
    assert!(by_prompts == zero_shot(&fixture, templates(&["a {}", "an icon of a {}"]), None));
    assert!(by_prompts != zero_shot(&fixture, templates(&["a {}"]), None));
}

#[test]
fn classes_may_have_different_numbers_of_prompts() {
    let fixture = Fixture::new();
    let rows = prompt_rows_of([&["a cat"], &["a dog", "a dog", "a dog"], &["a owl", "a owl"]]);
    let prompts = fixture::write(&fixture.store, prompts_unit(&["{}"]), &rows, &[]);
    let by_prompts = zero_shot(&fixture, ClassTexts::Prompts { truncate: false }, Some(&prompts));
    let by_template = zero_shot(&fixture, templates(&["a {}"]), None);
    // The mean of one text, three times: the sums are exact in f64, only the last normalisation rounds.
    let floats = |bytes: &[u8]| -> Vec<f32> {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let tensors = tensors.iter().flat_map(|(_, view)| view.data().as_chunks::<4>().0.to_vec());
        tensors.map(f32::from_le_bytes).collect()
    };
    let (a, b) = (floats(&by_prompts), floats(&by_template));
    assert!(a.len() == b.len() && !a.is_empty());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn a_long_prompt_is_an_error_unless_it_may_be_cut() {
    let fixture = Fixture::new();
    let long = "a cat ".repeat(40);
    let rows = prompt_rows_of([&[&long], &["a dog"], &["a owl"]]);
    let prompts = fixture::write(&fixture.store, prompts_unit(&["long {}"]), &rows, &[]);
    let mut spec = fixture.checkpoints_spec(VIT, Method::ZeroShot);
    spec.class_texts = Some(ClassTexts::Prompts { truncate: false });
    let inputs = [("images", &fixture.images), ("prompts", &prompts)];
    let error = fixture.run(&fixture::unit(StageSpec::Checkpoints(spec), &inputs)).unwrap_err();
    assert!(error.to_string().contains("a cat a cat"), "{error}");
    assert!(!zero_shot(&fixture, ClassTexts::Prompts { truncate: true }, Some(&prompts)).is_empty());
}
