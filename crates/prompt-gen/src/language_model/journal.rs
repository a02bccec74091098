//! Answers on disk: one line of JSON for each, written before the next step, so that no answer is paid for twice.
//!
//! The file belongs to a data set and a model, not to an artifact: another command, another class or another limit of
//! words asks only what was not asked before.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use pipeline_spec::Digest;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::question::Question;
use crate::Error;

/// Longest line that is read, in bytes; an answer itself has at most 1 MiB.
const MAX_LINE: u64 = 16 << 20;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// [`Question::digest`].
    question: Digest,
    /// The command, for people.
    text: String,
    answer: Answer,
    /// BLAKE3 over the other fields.
    check: Digest,
}

impl Entry {
    fn new(question: Digest, text: String, answer: Answer) -> Self {
        let check = Self::check(&question, &text, &answer);
        Self { question, text, answer, check }
    }

    fn check(question: &Digest, text: &str, answer: &Answer) -> Digest {
        Digest::blake3(serde_json::json!([question, text, answer]).to_string().as_bytes())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line).ok()?;
        (entry.check == Self::check(&entry.question, &entry.text, &entry.answer)).then_some(entry)
    }
}

/// The answers of one model about one data set.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    answers: HashMap<Digest, Answer>,
    /// For appending, locked; `None` if it was only read.
    file: Option<File>,
}

impl Journal {
    /// The answers at `path`, which need not exist. Nothing is changed.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let (answers, _) = match File::open(path) {
            Ok(file) => read_entries(path, file)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (HashMap::new(), 0),
            Err(e) => return Err(Error::read(path, e)),
        };
        Ok(Self { path: path.to_owned(), answers, file: None })
    }

    /// The answers at `path`, to add to them. Only one process does so at a time.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |e| Error::write(path, e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "the file system has no locks; run one process at a time");
            }
        }
        let reader = file.try_clone().map_err(failed)?;
        let (answers, whole) = read_entries(path, reader)?;
        if whole < file.metadata().map_err(failed)?.len() {
            // The process that wrote it was killed in the middle of the line.
            file.set_len(whole).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), answers, file: Some(file) })
    }

    /// The answer to the question with this digest.
    pub(crate) fn get(&self, question: &Digest) -> Option<&Answer> {
        self.answers.get(question)
    }

    /// Adds an answer; it is on disk when this returns.
    pub(crate) fn append(&mut self, question: &Question, answer: Answer) -> Result<(), Error> {
        let entry = Entry::new(question.digest.clone(), question.text.clone(), answer);
        let mut line = serde_json::json!(entry).to_string().into_bytes();
        line.push(b'\n');
        if let Some(file) = &mut self.file {
            file.write_all(&line).and_then(|()| file.sync_data()).map_err(|e| Error::write(&self.path, e))?;
        }
        self.answers.insert(entry.question, entry.answer);
        Ok(())
    }
}

/// The entries of a file, and the length of its whole lines. A damaged line is left out: its question is asked again.
fn read_entries(path: &Path, file: File) -> Result<(HashMap<Digest, Answer>, u64), Error> {
    let failed = |e| Error::read(path, e);
    let mut reader = BufReader::new(file);
    let (mut answers, mut whole, mut damaged) = (HashMap::new(), 0, 0_usize);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            if length as u64 == MAX_LINE {
                let reason = format!("at most {MAX_LINE} bytes in a line, found more");
                return Err(Error::Journal { path: path.to_owned(), reason });
            }
            break;
        }
        whole += length as u64;
        match Entry::parse(&line) {
            Some(entry) => drop(answers.insert(entry.question, entry.answer)),
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!(path = %path.display(), lines = damaged, "damaged answers; they are asked for again");
    }
    Ok((answers, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::question::Slot;
    use crate::language_model::question::tests::spec;

    fn question(attempt: u32) -> Question {
        Question::new(&spec(), "cat", Slot { class_id: 0, command: 0, answer: 0 }, 0, attempt)
    }

    fn answer(text: &str) -> Answer {
        Answer { text: text.to_owned(), ..Answer::filtered("m") }
    }

    fn filled(path: &Path) {
        let mut journal = Journal::open(path).unwrap();
        for attempt in 0..3 {
            journal.append(&question(attempt), answer(&format!("answer\n{attempt}"))).unwrap();
        }
    }

    #[test]
    fn answers_are_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.jsonl");
        assert!(Journal::read(&path).unwrap().get(&question(0).digest).is_none() && !path.exists());
        filled(&path);
        let journal = Journal::read(&path).unwrap();
        assert_eq!(journal.get(&question(2).digest), Some(&answer("answer\n2")));
    }

    #[test]
    fn a_line_cut_at_any_byte_loses_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        filled(&path);
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for end in last..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert!(journal.get(&question(1).digest).is_some());
            assert!(journal.get(&question(2).digest).is_none());
            journal.append(&question(2), answer("again")).unwrap();
            drop(journal);
            let journal = Journal::read(&path).unwrap();
            assert_eq!(journal.get(&question(2).digest), Some(&answer("again")), "cut at {end}");
        }
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        filled(&path);
        let bytes = std::fs::read(&path).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            let journal = Journal::read(&path).unwrap();
            for attempt in 0..3 {
                if let Some(found) = journal.get(&question(attempt).digest) {
                    assert_eq!(found, &answer(&format!("answer\n{attempt}")), "byte {index}");
                }
            }
        }
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let _first = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(Error::Busy { .. })));
    }
}
