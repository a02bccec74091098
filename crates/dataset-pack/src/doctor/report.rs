//! What the doctor found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// What was examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Folders, archives or Parquet files of a layout.
    Layout,
    /// The split file and its digest.
    SplitFile,
    /// Digests of archives.
    Digest,
    /// Class names.
    Names,
    /// Images per split.
    Counts,
    /// Every listed image is there.
    Files,
    /// Every image can be decoded.
    Images,
    /// No picture stands in two splits.
    Duplicates,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Packing refuses it, or gives other data than the published set.
    Problem,
    /// Good to know.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// How bad it is.
    pub severity: Severity,
    /// What was examined.
    pub check: Check,
    /// File, class or split.
    pub subject: String,
    /// What was expected and found.
    pub finding: String,
    /// What to do; empty for a note.
    pub remedy: String,
}

/// What the doctor found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The data set.
    pub dataset: String,
    /// Name of the layout, if one was found.
    pub layout: Option<String>,
    /// Folder of that layout.
    pub folder: Option<String>,
    /// How many things each check looked at.
    pub checked: BTreeMap<Check, u64>,
    /// Findings in the order of the checks.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(dataset: &str) -> Self {
        let (checked, rows) = (BTreeMap::new(), Vec::new());
        Self { dataset: dataset.to_owned(), layout: None, folder: None, checked, rows }
    }

    pub(super) fn note_checks(&mut self, check: Check, count: u64) {
        if count > 0 {
            *self.checked.entry(check).or_default() += count;
        }
    }

    pub(super) fn problem(
        &mut self,
        check: Check,
        subject: &str,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.checked.entry(check).or_default();
        self.rows.push(Row {
            severity: Severity::Problem,
            check,
            subject: subject.to_owned(),
            finding: finding.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn note(&mut self, check: Check, subject: &str, finding: impl Into<String>) {
        let (subject, finding, remedy) = (subject.to_owned(), finding.into(), String::new());
        self.rows.push(Row { severity: Severity::Note, check, subject, finding, remedy });
    }

    /// Number of problems.
    pub fn num_problems(&self) -> usize {
        self.rows.iter().filter(|row| row.severity == Severity::Problem).count()
    }

    /// A table for people: one line per check, then one line per finding.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let name =
            |check: Check| serde_json::to_value(check).ok().and_then(|v| v.as_str().map(str::to_owned));
        for (check, count) in &self.checked {
            let problems =
                |severity| self.rows.iter().filter(|r| r.check == *check && r.severity == severity).count();
            let state = match (problems(Severity::Problem), problems(Severity::Note)) {
                (0, 0) => "ok".to_owned(),
                (0, notes) => format!("ok, {}", counted(notes, "note")),
                (problems, _) => counted(problems, "problem"),
            };
            let _ = writeln!(text, "{:<11} {count:>9} checked  {state}", name(*check).unwrap_or_default());
        }
        for row in &self.rows {
            let kind = if row.severity == Severity::Problem { "PROBLEM" } else { "note" };
            let subject = if row.subject.is_empty() { String::new() } else { format!("`{}`: ", row.subject) };
            let remedy = if row.remedy.is_empty() { String::new() } else { format!("; {}", row.remedy) };
            let check = name(row.check).unwrap_or_default();
            let _ = writeln!(text, "{kind:<7} {check:<11} {subject}{}{remedy}", row.finding);
        }
        text
    }
}

/// A number with its noun.
pub fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
