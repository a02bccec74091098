//! Rules for `pipelines/*.toml`: each parses and says on top what it is.

use anyhow::Context;
use pipeline_spec::Pipeline;
use std::path::Path;

use crate::stored;

/// What the comment on top of a pipeline file says, one line each at least.
const HEADER: [&str; 4] = ["# Command:", "# Shows:", "# Time:", "# Hardware:"];

/// Broken rules of the pipeline files of the repository at `root`. Recipes in folders below are not pipelines.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in stored::entries(&root.join("pipelines"))? {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = format!("pipelines/{}", stored::file_name(&path));
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        problems.extend(
            missing_header_lines(&text).map(|line| format!("{name}: expected `{line}` in its header")),
        );
        if let Err(error) = Pipeline::read(&path) {
            problems.push(format!("{name}: {error}"));
        }
    }
    Ok(problems)
}

fn missing_header_lines(text: &str) -> impl Iterator<Item = &'static str> {
    let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    HEADER.into_iter().filter(move |start| header.iter().all(|line| !line.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_without_hardware_is_named() {
        let text = "# Command:  x\n# Shows:    y\n#           more\n# Time:     z\n\nname = \"a\"\n# Hardware: late\n";
        assert_eq!(missing_header_lines(text).collect::<Vec<_>>(), ["# Hardware:"]);
    }
}
