//! `tidy`: the rules of the repository that the compiler does not know. The tests run it too.

mod dependencies;
mod pipelines;
mod sources;

use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::{stored, terminal, workspace};

/// Check the rules of the repository: module docs, file lengths, dependency direction, pipeline files, paths
#[derive(Args)]
pub struct Tidy {}

impl Tidy {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let problems = problems(&workspace::root())?;
        problems.iter().for_each(terminal::print);
        if problems.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("{} rules are broken", problems.len());
    }
}

/// Every broken rule of the repository at `root`, one line each.
fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in files(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        problems.extend(sources::problems(&name, &text));
    }
    problems.extend(pipelines::problems(root)?);
    problems.extend(dependencies::problems(root)?);
    Ok(problems)
}

/// The text files of the repository. Git is not asked: a copy may have none.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in stored::entries(&folder)? {
            let name = stored::file_name(&path);
            let metadata = std::fs::symlink_metadata(&path)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            if metadata.is_dir() {
                // Made by the tools; nothing in them is part of the repository.
                let is_made = matches!(name.as_str(), ".git" | "target" | "store" | "data" | "reports");
                if folder != root || !is_made {
                    folders.push(path);
                }
            } else if metadata.is_file() && is_text(&name) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_text(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    matches!(extension, "rs" | "toml" | "md" | "py" | "sh" | "yml" | "yaml" | "txt")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_keeps_its_rules() {
        let root =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let problems = super::problems(root).unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}
