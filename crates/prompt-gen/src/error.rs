//! Why prompts cannot be made.

use std::path::{Path, PathBuf};

use pipeline_spec::{ArtifactKind, Digest};
use stage_cli::Interrupted;

use crate::language_model::{NoAnswer, Remedy};

/// A failure of the stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The artifact cannot be written.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
    /// The unit or the data manifest cannot be used.
    #[error("{0}")]
    Contract(#[from] pipeline_spec::Error),
    /// The stage was asked for a kind that it does not write.
    #[error("`prompt-gen` writes `prompts`, the spec asks for `{found}`; run `{stage}` on it", stage = found.stage())]
    NotMine {
        /// The kind asked for.
        found: ArtifactKind,
    },
    /// A file is not the one that the spec pins.
    #[error(
        "`{}`: field `{field}` of the spec expects the BLAKE3 digest {expected}, the file has {found}; \
         restore the file, or make the plan again to use the changed one", path.display()
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// Field of the spec.
        field: &'static str,
        /// Digest in the spec.
        expected: Digest,
        /// Digest of the file.
        found: Digest,
    },
    /// The manifest does not list its classes.
    #[error("`{}` lists no classes; name them under `[form.folder]` `classes`, prompts need their names", path.display())]
    NoClasses {
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest is that of another data set.
    #[error("`{}`: field `dataset`: expected `{expected}`, found `{found}`", path.display())]
    Dataset {
        /// The manifest.
        path: PathBuf,
        /// Data set of the spec.
        expected: String,
        /// Data set of the manifest.
        found: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A prompt file does not have the form of CuPL, CaFo and APE.
    #[error(
        "`{}` is not a prompt file: expected a JSON object from class name to a list of prompts, or a folder with a text \
         file for each class; {reason}", path.display()
    )]
    PromptFile {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A class of the data set has no prompts in the file.
    #[error(
        "`{}`: no entry for {} `{}`: expected one for every class of the data set; add them, \
         or rename the entries to the names of the data manifest",
        path.display(), plural(classes.len()), classes.join("`, `")
    )]
    MissingClasses {
        /// The file.
        path: PathBuf,
        /// The classes.
        classes: Vec<String>,
    },
    /// The file has an entry for a class that the data set does not have.
    #[error(
        "`{}`: entries for unknown {} `{}`: remove them, or rename them to the names of the data manifest",
        path.display(), plural(classes.len()), classes.join("`, `")
    )]
    UnknownClasses {
        /// The file.
        path: PathBuf,
        /// The entries.
        classes: Vec<String>,
    },
    /// The base URL of the server cannot be used. It is not shown, because it may hold a key.
    #[error(
        "`--base-url` (or `OPENAI_BASE_URL`): expected {expected}, for example `http://127.0.0.1:8080/v1`"
    )]
    BaseUrl {
        /// What is missing.
        expected: &'static str,
    },
    /// The key has characters that no header may have.
    #[error(
        "`--api-key` (or `OPENAI_API_KEY`) has characters that no key has, such as a line break; set it again"
    )]
    ApiKey,
    /// The file of answers cannot be used.
    #[error("`{}` is not a file of answers: {reason}; move it away to ask again", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// Another process adds to the file of answers.
    #[error("another process asks the same model about the same data set (`{}` is locked); wait until it ends", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The server refuses.
    #[error("`{server}` refuses: {problem}")]
    Refused {
        /// Scheme, host and port.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The server cannot be reached.
    #[error("`{server}` cannot be reached: {problem}; start it, or name another with `--base-url`")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// What happened last.
        problem: String,
    },
    /// The server failed too often.
    #[error(
        "`{server}` gave no answer in {requests} requests, at last: {problem}; answers are kept, run the same command again to go on"
    )]
    Failing {
        /// Scheme, host and port.
        server: String,
        /// Requests of one question.
        requests: u32,
        /// What happened last.
        problem: String,
    },
    /// The server asks for a longer wait than the run allows.
    #[error(
        "`{server}` asks to wait {wait_s} s, more than `--max-wait`: {problem}; answers are kept, run the same command later to go on"
    )]
    LongWait {
        /// Scheme, host and port.
        server: String,
        /// The wait.
        wait_s: u64,
        /// What it said.
        problem: String,
    },
    /// A limit of this run is reached.
    #[error("stopped because {limit}; answers are kept, run the same command again to go on")]
    Limit {
        /// Which one.
        limit: String,
    },
    /// A class has no answer that can be used.
    #[error(
        "no answer about {} `{}` could be used in any attempt; change the commands, or raise `attempts` or `max_words`",
        plural(classes.len()), classes.join("`, `")
    )]
    NoPrompts {
        /// The classes.
        classes: Vec<String>,
    },
    /// A question is open after all were asked.
    #[error("`{question}` has no answer; run the same command again")]
    Unanswered {
        /// The question.
        question: String,
    },
    /// The work was stopped by a signal.
    #[error("{0}")]
    Interrupted(#[from] Interrupted),
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "class" } else { "classes" }
}

impl Error {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Artifact(artifacts::Error::Write { path: path.to_owned(), free_bytes: None, source })
    }

    /// Why the server of a language model left a question open.
    pub(crate) fn no_answer(server: &str, reason: NoAnswer) -> Self {
        let server = server.to_owned();
        match reason {
            NoAnswer::Stopped => Self::Limit { limit: "another question failed".to_owned() },
            NoAnswer::Limit(limit) => Self::Limit { limit },
            NoAnswer::Panicked => {
                Self::Refused { server, problem: "the HTTP client panicked at its answer".to_owned() }
            }
            NoAnswer::LongWait { failure, wait } => {
                Self::LongWait { server, wait_s: wait.as_secs(), problem: failure.problem }
            }
            NoAnswer::Failed { failure, requests } => match failure.remedy {
                Remedy::GiveUp => Self::Refused { server, problem: failure.problem },
                Remedy::Reconnect => Self::Unreachable { server, problem: failure.problem },
                Remedy::Retry | Remedy::Wait(_) => {
                    Self::Failing { server, requests, problem: failure.problem }
                }
            },
        }
    }

    pub(crate) fn prompt_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::PromptFile { path: path.to_owned(), reason: reason.into() }
    }
}
