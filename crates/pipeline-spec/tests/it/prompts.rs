//! What may be asked of a language model, and where prompts come from.

use std::collections::BTreeSet;

use pipeline_spec::spec::{LanguageModelSpec, PromptProvider};
use pipeline_spec::{ArtifactKind, Pipeline, Plan, StageSpec, Unit, prompts_digest};

use crate::fixture::Fixture;

const UNIT: &str = r#"
[spec]
kind = "prompts"

[spec.spec]
dataset = "toys"
manifest_digest = "0000000000000000000000000000000000000000000000000000000000000000"

[spec.spec.provider]
kind = "openai"
model = "org/Model-1B"
endpoint = "chat-completions"
commands = ["Describe what a(n) {} looks like", "A caption of {}:"]
answers_per_command = 10
attempts = 3
temperature = 0.99
max_tokens = 50
stop = ["."]
seed = 1
max_words = 60

[inputs]
"#;

/// Reads [`UNIT`] with `old` replaced by `new`.
fn read(old: &str, new: &str) -> Result<Unit, pipeline_spec::Error> {
    assert!(UNIT.contains(old));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unit.toml");
    std::fs::write(&path, UNIT.replacen(old, new, 1)).unwrap();
    Unit::read(&path)
}

#[test]
fn every_field_of_what_is_asked_changes_the_key() {
    let id = read("", "").unwrap().output();
    assert!(id.to_string().contains("/openai-org-model-1b-"), "{id}");
    let changes = [
        ("org/Model-1B", "org/Model-2B"),
        ("chat-completions", "completions"),
        ("A caption of {}:", "A caption of {}"),
        ("commands = [", "system = \"Be short.\"\ncommands = ["),
        ("commands = [", "answer_prefix = \"a {}.\"\ncommands = ["),
        ("answers_per_command = 10", "answers_per_command = 11"),
        ("attempts = 3", "attempts = 4"),
        ("temperature = 0.99", "temperature = 1.0"),
        ("temperature = 0.99", ""),
        ("max_tokens = 50", "max_tokens = 51"),
        ("stop = [\".\"]", "stop = []"),
        ("seed = 1", "seed = 2"),
        ("seed = 1", ""),
        ("max_words = 60", "max_words = 61"),
    ];
    let keys: BTreeSet<_> =
        changes.iter().map(|(old, new)| read(old, new).unwrap().output().key).chain([id.key]).collect();
    assert_eq!(keys.len(), changes.len() + 1);
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_field() {
    for (old, new, expected) in [
        ("org/Model-1B", " ", "provider.model"),
        ("looks like", "{} looks like", "provider.commands"),
        ("A caption of {}:", "A caption", "provider.commands"),
        ("A caption of {}:", "Describe what a(n) {} looks like", "expected each command once"),
        ("commands = [", "answer_prefix = \"a\"\ncommands = [", "provider.answer_prefix"),
        ("endpoint = \"chat-completions\"", "endpoint = \"completions\"\nsystem = \"x\"", "provider.system"),
        ("answers_per_command = 10", "answers_per_command = 0", "provider.answers_per_command"),
        ("attempts = 3", "attempts = 0", "provider.attempts"),
        ("temperature = 0.99", "temperature = nan", "provider.temperature"),
        ("temperature = 0.99", "temperature = 2.1", "provider.temperature"),
        ("max_tokens = 50", "max_tokens = 0", "provider.max_tokens"),
        ("stop = [\".\"]", "stop = [\"\"]", "provider.stop"),
        ("max_words = 60", "max_words = 76", "provider.max_words"),
        ("max_words = 60", "max_word = 60", "max_word"),
        ("chat-completions", "chat", "unknown variant `chat`"),
        ("max_tokens = 50\n", "", "missing field `max_tokens`"),
    ] {
        let message = read(old, new).unwrap_err().to_string();
        assert!(message.contains(expected), "`{expected}` is not in: {message}");
    }
}

/// The provider of the prompts of the fixture's pipeline with this table `[prompts]`.
fn planned(fixture: &Fixture, table: &str) -> PromptProvider {
    let text = crate::fixture::PIPELINE;
    let start = text.find("[prompts]").unwrap();
    let end = start + text[start..].find("\n[").map_or(text.len() - start, |i| i + 1);
    let text = format!("{}[prompts]\n{table}\n{}", &text[..start], &text[end..]);
    std::fs::write(fixture.path("pipeline.toml"), text).unwrap();
    let pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    let mut prompts = plan.units.into_iter().filter(|u| u.output.kind == ArtifactKind::Prompts);
    let StageSpec::Prompts(spec) = prompts.next().unwrap().unit.spec else { unreachable!() };
    assert!(prompts.next().is_none());
    spec.provider
}

#[test]
fn a_pipeline_names_what_is_asked_as_a_unit_does() {
    let start = UNIT.find("kind = \"openai\"").unwrap();
    let table = UNIT[start..].split("\n[").next().unwrap();
    let PromptProvider::Openai(found) = planned(&Fixture::new(), table) else { panic!("another provider") };
    let StageSpec::Prompts(unit) = read("", "").unwrap().spec else { unreachable!() };
    let PromptProvider::Openai(expected) = unit.provider else { unreachable!() };
    let LanguageModelSpec { ref commands, .. } = found;
    assert_eq!(commands.len(), 2);
    assert_eq!(found, expected);
}

#[test]
fn prompts_may_be_the_templates_of_the_manifest() {
    let fixture = Fixture::new();
    let manifest = "dataset = \"toys\"\ndescription = \"Toys.\"\ntemplates = [\"my toy {}\", \"a {}\"]\nsources = []\n\
                    [form.folder]\nroot = \".\"\n[form.folder.split.percent]\ntrain = 50\nval = 25\ntest = 25\n";
    std::fs::write(fixture.path("data-manifests/toys.toml"), manifest).unwrap();
    let templates = ["my toy {}", "a {}"].map(str::to_owned).to_vec();
    assert_eq!(planned(&fixture, "kind = \"manifest\""), PromptProvider::Templates { templates });
}

#[test]
fn a_folder_of_prompts_is_pinned_by_its_text_files() {
    let fixture = Fixture::new();
    let folder = fixture.path("texts");
    std::fs::create_dir_all(&folder).unwrap();
    assert!(prompts_digest(&folder).unwrap_err().to_string().contains("no `.txt` file"));
    std::fs::write(folder.join("cat.txt"), "a cat").unwrap();
    let table = format!("kind = \"file\"\nname = \"own\"\npath = \"{}\"", folder.display());
    let PromptProvider::File { digest, .. } = planned(&fixture, &table) else { panic!("another provider") };
    std::fs::write(folder.join("notes.md"), "nothing").unwrap();
    assert_eq!(prompts_digest(&folder).unwrap(), digest);
    std::fs::rename(folder.join("cat.txt"), folder.join("dog.txt")).unwrap();
    assert_ne!(prompts_digest(&folder).unwrap(), digest);
}
