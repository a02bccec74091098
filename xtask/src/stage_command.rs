//! The command line of one unit: the same on this machine and on a cluster.

use pipeline_spec::{Stage, Store};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::Binaries;
use crate::options::{DataOption, PlanOptions};

/// Where and how stages run; nothing of it is hashed into a key.
#[derive(Debug, Clone)]
pub struct StageSettings {
    pub binaries: Binaries,
    pub store: Store,
    pub weights: PathBuf,
    pub manifests: PathBuf,
    pub data: PathBuf,
    pub device: Option<String>,
}

/// A part of a unit's work: shard `index` of `count`, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    pub index: u32,
    pub count: u32,
}

impl StageSettings {
    /// Settings from a command's options.
    pub fn new(binaries: Binaries, plan: &PlanOptions, data: &DataOption, device: Option<String>) -> Self {
        Self {
            binaries,
            store: plan.store.store(),
            weights: plan.weights(),
            manifests: plan.manifests(),
            data: data.data(),
            device,
        }
    }

    /// Program and arguments for the unit in `unit_file`.
    pub fn words(&self, stage: Stage, unit_file: &Path, shard: Option<Shard>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.binaries.path(stage).into()];
        let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
        option("--spec", unit_file.into());
        option("--store", self.store.root().into());
        if let Some(Shard { index, count }) = shard {
            option("--shard", format!("{index}/{count}").into());
        }
        match stage {
            Stage::PromptGen => option("--manifests", self.manifests.clone().into()),
            Stage::DatasetPack => {
                option("--manifests", self.manifests.clone().into());
                option("--data", self.data.clone().into());
            }
            Stage::SdLatents | Stage::Trainer | Stage::Evaluator => {
                option("--weights", self.weights.clone().into());
                if let Some(device) = &self.device {
                    option("--device", device.into());
                }
            }
        }
        words
    }

    /// A process that computes the units that its input names.
    pub fn command(&self, stage: Stage, shard: Option<Shard>) -> Command {
        let words = self.words(stage, Path::new("-"), shard);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The command line for a shell.
    pub fn line(&self, stage: Stage, unit_file: &Path, shard: Option<Shard>) -> String {
        let words = self.words(stage, unit_file, shard);
        words.iter().map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }
}

/// `word` as a shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_blanks_are_quoted_for_the_shell() {
        assert_eq!(quoted("a/b-c.json"), "a/b-c.json");
        assert_eq!(quoted("my store"), "'my store'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
