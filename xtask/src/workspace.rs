//! Where the repository or a distribution lies, and cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Marks the root of a distribution (`cargo xtask dist`), whose binaries lie in `bin/`.
pub const DISTRIBUTION_FILE: &str = "flier-dist.json";

/// Root of the workspace: above the folder that `cargo run` names; without cargo, the distribution that this binary lies
/// in; else the current folder.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = package.as_deref().and_then(Path::parent).filter(|root| root.join("Cargo.toml").is_file());
    root.map(Path::to_path_buf).or_else(distribution).unwrap_or_else(|| PathBuf::from("."))
}

/// Whether this binary lies in a distribution: there is then no source and perhaps no cargo.
pub fn is_distribution() -> bool {
    distribution().is_some()
}

fn distribution() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let root = program.parent()?.parent()?;
    root.join(DISTRIBUTION_FILE).is_file().then(|| root.to_path_buf())
}

/// `name` below the root, written as short as possible.
pub fn path(name: &str) -> PathBuf {
    let root = root();
    match std::env::current_dir() {
        Ok(current) if current == root => PathBuf::from(name),
        _ if root == Path::new(".") => PathBuf::from(name),
        _ => root.join(name),
    }
}

/// `name` where things are made: as [`path`], but in the current folder for a distribution, which people share.
pub fn output_path(name: &str) -> PathBuf {
    if is_distribution() { PathBuf::from(name) } else { path(name) }
}

/// Folder of the stages' binaries where nobody names one.
pub fn bin_dir() -> PathBuf {
    path(if is_distribution() { "bin" } else { "target/release" })
}

/// The cargo that started this program, working in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for this package by `cargo run`; a build script of the build to come must not see them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}
