//! Rules for single files.

/// Lines that a source file may have.
const MAX_LINES: usize = 500;

/// Names that say nothing; a module is called after what is in it.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "common", "helper", "helpers"];

/// Broken rules of the file `name` below the root.
pub fn problems(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(path) = path_of_a_machine(line) {
            problems.push(format!("{name}:{}: `{path}` is a path of one machine", index + 1));
        }
    }
    if !name.ends_with(".rs") {
        return problems;
    }
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if first.is_none_or(|line| !line.starts_with("//!")) {
        problems.push(format!("{name}: expected a module doc (`//!`) on top"));
    }
    let num_lines = text.lines().count();
    if num_lines > MAX_LINES {
        problems
            .push(format!("{name}: {num_lines} lines, expected at most {MAX_LINES}; split it by subject"));
    }
    let is_empty_name = |part: &str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
    if let Some(part) = name.split('/').find(|part| is_empty_name(part)) {
        problems.push(format!("{name}: `{part}` says nothing; name it after what is in it"));
    }
    problems
}

/// A home or work folder in `line`, if there is one.
fn path_of_a_machine(line: &str) -> Option<&str> {
    for folder in ["home", "Users", "root", "work"] {
        for (at, _) in line.match_indices(folder) {
            let before = &line[..at];
            let Some(rest) = line[at + folder.len()..].strip_prefix('/') else { continue };
            let starts_a_path = before.strip_suffix('/').is_some_and(|before| {
                before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"/_.-}>])".contains(c))
            });
            if starts_a_path && rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.') {
                return Some(&line[at - 1..line.len().min(at + folder.len() + 12)])
                    .filter(|text| !text.is_empty());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_module_doc_is_named() {
        assert!(problems("a.rs", "//! Doc.\nfn f() {}\n").is_empty());
        assert_eq!(problems("a.rs", "fn f() {}\n"), ["a.rs: expected a module doc (`//!`) on top"]);
    }

    #[test]
    fn a_long_file_is_named() {
        let text = format!("//! Doc.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(problems("a.rs", &text).len(), 1);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let home = ["/ho", "me/someone/x"].concat();
        assert!(path_of_a_machine(&format!("open(\"{home}\")")).is_some());
        assert!(path_of_a_machine(&format!("see {home}")).is_some());
        for line in [
            "store/work/key",
            "<store>/work/<key>/",
            "https://host.org/home/page",
            "{root}/work/x",
            "/ho me/",
        ] {
            assert_eq!(path_of_a_machine(line), None, "{line}");
        }
    }
}
