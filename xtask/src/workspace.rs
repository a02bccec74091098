//! Where the repository lies, and its `cargo`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the workspace: above the folder that `cargo run` names, or the current folder where this binary was
/// started without cargo (on a cluster).
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = package.as_deref().and_then(Path::parent).filter(|root| root.join("Cargo.toml").is_file());
    root.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
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
