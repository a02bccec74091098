//! A folder with a manifest, and the binary run in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use artifacts::{ArtifactReader, PromptRow};
use pipeline_spec::spec::{Endpoint, LanguageModelSpec, PromptProvider, PromptsSpec};
use pipeline_spec::{DatasetId, Digest, StageSpec, Store, Unit};

/// A key that must not be seen anywhere.
pub const KEY: &str = "sk-S3ntinel/Key+0123456789";
/// How the key stands in a URL.
pub const KEY_IN_URL: &str = "sk-S3ntinel%2FKey%2B0123456789";

pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// A data set `animals` with so many classes.
    pub fn new(num_classes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let classes: Vec<String> =
            (0..num_classes).map(|i| format!("{{ folder = \"c{i}\", name = \"animal {i}\" }}")).collect();
        let manifest = format!(
            "dataset = \"animals\"\ndescription = \"Animals.\"\ntemplates = [\"a {{}}\"]\nsources = []\n\
             [form.folder]\nroot = \".\"\nclasses = [{}]\nsplit.folders = {{ train = \"train\" }}\n",
            classes.join(", ")
        );
        std::fs::write(folder.path().join("animals.toml"), manifest).unwrap();
        Self { folder }
    }

    pub fn store(&self) -> Store {
        Store::new(self.folder.path().join("store"))
    }

    /// The unit that asks `spec`.
    pub fn unit(&self, spec: LanguageModelSpec) -> Unit {
        let manifest = std::fs::read(self.folder.path().join("animals.toml")).unwrap();
        let spec = StageSpec::Prompts(PromptsSpec {
            dataset: DatasetId::try_from("animals".to_owned()).unwrap(),
            manifest_digest: Digest::blake3(&manifest),
            provider: PromptProvider::Openai(spec),
        });
        let unit = Unit { spec, inputs: BTreeMap::new() };
        unit.check().unwrap();
        unit
    }

    /// The binary on `unit`, asking the server at `url`; waits of fractions of a second, and every log line.
    pub fn command(&self, unit: &Unit, url: &str, more: &[&str]) -> Command {
        let path = self.folder.path().join("unit.json");
        std::fs::write(&path, serde_json::to_vec(unit).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-gen"));
        command
            .args(["-vv", "--backoff", "0.002", "--spec"])
            .arg(path)
            .arg("--store")
            .arg(self.store().root())
            .arg("--manifests")
            .arg(self.folder.path())
            .args(more)
            .env("OPENAI_BASE_URL", url)
            .env("OPENAI_API_KEY", KEY)
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, unit: &Unit, url: &str, more: &[&str]) -> Output {
        self.command(unit, url, more).output().unwrap()
    }

    pub fn start(&self, unit: &Unit, url: &str, more: &[&str]) -> Child {
        self.command(unit, url, more).spawn().unwrap()
    }

    pub fn rows(&self, unit: &Unit) -> Vec<PromptRow> {
        ArtifactReader::open(&self.store(), &unit.output()).unwrap().rows::<PromptRow>().unwrap()
    }

    /// The file of answers.
    pub fn journal_path(&self) -> PathBuf {
        let dataset = DatasetId::try_from("animals".to_owned()).unwrap();
        self.store().answers_path(&dataset, "test-model")
    }

    /// Lines of the file of answers.
    pub fn journal(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// One command, one answer to it.
pub fn spec() -> LanguageModelSpec {
    LanguageModelSpec {
        model: "test-model".to_owned(),
        endpoint: Endpoint::ChatCompletions,
        commands: vec!["Describe what a(n) {} looks like".to_owned()],
        system: None,
        answer_prefix: None,
        answers_per_command: 1,
        attempts: 3,
        temperature: Some(0.99),
        max_tokens: 50,
        stop: vec![".".to_owned()],
        seed: Some(1),
        max_words: 60,
    }
}

/// stderr of a run that ended with this exit code.
pub fn stderr(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Every file below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Fails if the key, or a good part of it, stands in `bytes`.
pub fn assert_no_key(bytes: &[u8], what: &str) {
    for part in ["S3ntinel", "0123456789"] {
        let found = bytes.windows(part.len()).any(|window| window == part.as_bytes());
        assert!(!found, "the key stands in {what}: {}", String::from_utf8_lossy(bytes));
    }
}
