//! The dependency direction of the workspace, over `cargo metadata`.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use crate::workspace;

/// What a crate may use.
struct Rule {
    name: &'static str,
    /// Crates of this workspace.
    ours: &'static [&'static str],
    /// Crates from elsewhere that it must not use.
    never: &'static [&'static str],
}

const ARROW: &[&str] = &["arrow", "parquet"];
const NETWORKS: &[&str] = &["burn"];

/// Crates that open connections.
const CLIENTS: &[&str] = &["ureq", "hf-hub"];
/// The crates that may: nothing else of this workspace reaches beyond the machine, but for `xtask fetch` and `xtask libtorch`,
/// which start npm and pip.
const ONLINE: &[&str] = &["hub", "prompt-gen"];

/// One line per crate; a crate uses only crates of lines above its own.
const RULES: &[Rule] = &[
    Rule { name: "pipeline-spec", ours: &[], never: &["arrow", "parquet", "burn", "clap", "anyhow"] },
    Rule { name: "artifacts", ours: &["pipeline-spec"], never: &["burn", "clap", "anyhow"] },
    Rule { name: "hub", ours: &[], never: &["arrow", "parquet", "burn", "clap", "anyhow"] },
    Rule { name: "fused-ops", ours: &[], never: &["arrow", "parquet", "clap", "anyhow"] },
    Rule { name: "backend", ours: &["fused-ops"], never: &["arrow", "parquet", "clap", "anyhow"] },
    Rule { name: "clip-model", ours: &["fused-ops"], never: &["arrow", "parquet", "clap", "anyhow"] },
    Rule {
        name: "sd-model",
        ours: &["clip-model", "fused-ops"],
        never: &["arrow", "parquet", "clap", "anyhow"],
    },
    Rule { name: "flier-model", ours: &["clip-model"], never: &["arrow", "parquet", "clap", "anyhow"] },
    Rule { name: "stage-cli", ours: &["pipeline-spec", "artifacts"], never: NETWORKS },
    Rule { name: "prompt-gen", ours: &["pipeline-spec", "artifacts", "stage-cli"], never: NETWORKS },
    Rule { name: "dataset-pack", ours: &["pipeline-spec", "artifacts", "stage-cli"], never: NETWORKS },
    Rule {
        name: "sd-latents",
        ours: &["pipeline-spec", "artifacts", "stage-cli", "backend", "clip-model", "sd-model"],
        never: ARROW,
    },
    Rule {
        name: "trainer",
        ours: &["pipeline-spec", "artifacts", "stage-cli", "backend", "clip-model", "flier-model"],
        never: ARROW,
    },
    Rule {
        name: "evaluator",
        ours: &["pipeline-spec", "artifacts", "stage-cli", "backend", "clip-model", "flier-model"],
        never: ARROW,
    },
    Rule {
        name: "pretrain",
        ours: &["pipeline-spec", "artifacts", "stage-cli", "backend", "clip-model", "sd-model"],
        never: ARROW,
    },
    Rule { name: FEATURES, ours: &[], never: &["arrow", "parquet", "burn", "clap", "anyhow"] },
    Rule { name: "xtask", ours: &["pipeline-spec"], never: &["arrow", "parquet", "burn"] },
];

/// The crate without code that gives every build the same features; every crate may name it.
const FEATURES: &str = "workspace-hack";
/// The package of the tests over whole pipelines, which may use anything.
const FREE: &str = "integration-tests";

/// Broken rules of the workspace at `root`.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed; its messages are above");
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` gave no JSON")?;
    Ok(broken(&packages(&metadata).context("`cargo metadata` has another form than expected")?))
}

/// The ordinary and build dependencies of each package; what only tests use is free.
fn packages(metadata: &serde_json::Value) -> Option<BTreeMap<String, Vec<String>>> {
    let mut packages = BTreeMap::new();
    for package in metadata.get("packages")?.as_array()? {
        let mut names = Vec::new();
        for dependency in package.get("dependencies")?.as_array()? {
            if dependency.get("kind")?.as_str() != Some("dev") {
                names.push(dependency.get("name")?.as_str()?.to_owned());
            }
        }
        packages.insert(package.get("name")?.as_str()?.to_owned(), names);
    }
    Some(packages)
}

fn broken(packages: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, dependencies) in packages.iter().filter(|(name, _)| *name != FREE) {
        let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
            problems.push(format!("crate `{name}` has no line in the dependency table of `xtask/src/tidy`"));
            continue;
        };
        for dependency in dependencies {
            if packages.contains_key(dependency)
                && dependency != FEATURES
                && !rule.ours.contains(&dependency.as_str())
            {
                let ours = rule.ours.join(", ");
                problems.push(format!(
                    "crate `{name}` uses `{dependency}`; of this workspace it may use: {ours}"
                ));
            }
            let is_client = CLIENTS.contains(&dependency.as_str()) && !ONLINE.contains(&name.as_str());
            if rule.never.contains(&dependency.as_str()) || is_client {
                problems.push(format!("crate `{name}` uses `{dependency}`, which it must not"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        let table =
            |name: &str, uses: &[&str]| (name.to_owned(), uses.iter().map(|&u| u.to_owned()).collect());
        let good = [table("clip-model", &["burn"]), table("sd-model", &["burn", "clip-model"])];
        assert!(broken(&good.into_iter().collect()).is_empty());
        let bad = [table("clip-model", &["clap", "sd-model"]), table("sd-model", &[]), table("new", &[])];
        assert_eq!(broken(&bad.into_iter().collect()).len(), 3);
        let online = [table("hub", &["hf-hub"]), table("prompt-gen", &["ureq"]), table("trainer", &["ureq"])];
        assert_eq!(
            broken(&online.into_iter().collect()),
            ["crate `trainer` uses `ureq`, which it must not".to_owned()]
        );
    }

    #[test]
    fn rules_only_name_crates_above() {
        for (index, rule) in RULES.iter().enumerate() {
            for ours in rule.ours {
                assert!(RULES[..index].iter().any(|above| above.name == *ours), "{} uses {ours}", rule.name);
            }
        }
    }
}
