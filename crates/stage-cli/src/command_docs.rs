//! Man pages and shell completions of a stage's binary, for `cargo xtask dist`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use clap_complete::Shell;

/// Not for people, so it stands in no help text.
const WRITE_DOCS: &str = "--write-docs";

/// The arguments of this process.
///
/// `--write-docs DIR` as the first argument writes the binary's man pages and shell completions instead, and ends the
/// process.
pub fn parse<A: CommandFactory + FromArgMatches>() -> A {
    A::from_arg_matches(&matches(A::command())).unwrap_or_else(|error| error.exit())
}

/// Like [`parse`], for a binary that puts its command together by hand.
pub fn matches(command: Command) -> ArgMatches {
    crate::keep_freed_memory();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [option, folder] = &arguments[..]
        && option == WRITE_DOCS
    {
        let result = write(command, &PathBuf::from(folder));
        let is_written = result.is_ok();
        crate::finish(
            result.map_err(|error| anyhow::Error::new(error).context("cannot write the command's pages")),
        );
        std::process::exit(i32::from(!is_written));
    }
    command.get_matches()
}

/// Writes `man/man1/*.1` and `completions/*` below `folder`.
fn write(command: Command, folder: &Path) -> std::io::Result<()> {
    let (man, completions) = (folder.join("man/man1"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), &name, &completions)?;
    }
    clap_mangen::generate_to(command, &man)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_every_shell_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let command =
            Command::new("stage").about("Does it.").subcommand(Command::new("show").about("Shows it."));
        write(command, folder.path()).unwrap();
        for file in
            ["man/man1/stage.1", "man/man1/stage-show.1", "completions/stage.bash", "completions/_stage"]
        {
            assert!(folder.path().join(file).is_file(), "{file}");
        }
    }
}
