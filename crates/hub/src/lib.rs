//! Files of the Hugging Face hub: fetched by the crate `hf-hub` into the cache that Python's `huggingface_hub` uses.
//!
//! What `hf-hub` leaves to its caller is done here: `HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_HUB_CACHE` are honoured, a large file
//! is compared with the SHA-256 that the hub announces and removed if it differs, and what the server says is not taken for a path.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, Repo};
use sha2::{Digest, Sha256};

/// Where files are fetched from if `HF_ENDPOINT` does not say.
const ENDPOINT: &str = "https://huggingface.co";
/// Times that a broken transfer is taken up again where it broke.
const RETRIES: usize = 3;

/// The hub, as this process may use it.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The cache: `models--<organisation>--<name>/{blobs,refs,snapshots}`.
    pub cache: PathBuf,
    /// Address of the server.
    pub endpoint: String,
    /// For private and gated repositories.
    pub token: Option<String>,
    /// Whether the network is forbidden.
    pub is_offline: bool,
    /// Whether a bar is drawn on stderr.
    pub shows_progress: bool,
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user forbids the network.
    #[error("`{file}` of `{repo}` is not fetched: `HF_HUB_OFFLINE` is set; put it into the cache `{}`, or unset the variable", cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The server wants to know who asks: the repository is private, gated or does not exist.
    #[error(
        "{endpoint} refuses `{repo}` ({status}): check the name; if it is private or gated, accept its terms there and set `HF_TOKEN`"
    )]
    Refused {
        /// The repository.
        repo: String,
        /// Address of the server.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer, an answer that makes no sense, or one that broke off.
    #[error("cannot fetch `{file}` of `{repo}` from {endpoint}; run the command again to go on")]
    Request {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Address of the server.
        endpoint: String,
        /// The cause.
        source: Box<ApiError>,
    },
    /// A name that would lead out of the cache.
    #[error("`{name}` is no {what}")]
    Name {
        /// What it should be.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The file has other bytes than announced.
    #[error(
        "`{file}` of `{repo}` came with {what} {found}, announced was {expected}; it was removed, fetch it again"
    )]
    Damaged {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What differs: sha256 or a length in bytes.
        what: &'static str,
        /// The server's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// A file of the cache cannot be read or removed.
    #[error("cannot read or remove `{}`", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Hub {
    /// The hub as the environment sets it: `HF_ENDPOINT`, `HF_TOKEN` (else the file `token` that `hf auth login` writes beside
    /// the cache) and `HF_HUB_OFFLINE`.
    pub fn from_env(cache: PathBuf) -> Self {
        Self::from_variables(cache, |name| std::env::var(name).ok())
    }

    /// The same with the variables given.
    pub fn from_variables(cache: PathBuf, variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        // The values that huggingface_hub takes for true.
        let is_true = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Hub {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            token: text("HF_TOKEN").or_else(|| Cache::new(cache.clone()).token()),
            is_offline: text("HF_HUB_OFFLINE").is_some_and(is_true),
            shows_progress: true,
            cache,
        }
    }

    /// Fetches a file of a model's repository (`organisation/name`, revision `main`) and gives its path in the cache; `None` if
    /// the repository has no such file.
    ///
    /// What the cache has already is checked, not fetched again. A transfer that breaks is tried again, and the next call goes on where the last one broke.
    ///
    /// # Errors
    ///
    /// Fails if the network is forbidden, the server refuses or does not answer, or the file has another length or SHA-256 than
    /// the server announces; then it is removed.
    pub fn fetch(&self, repo: &str, file: &str) -> Result<Option<PathBuf>, Error> {
        check_name("repository", repo, repo.split('/').count() == 2)?;
        check_name("file name", file, true)?;
        if self.is_offline {
            let (repo, file, cache) = (repo.to_owned(), file.to_owned(), self.cache.clone());
            return Err(Error::Offline { repo, file, cache });
        }
        let fetched = || -> Result<(PathBuf, Metadata), Failure> {
            let api = self.api()?;
            let repository = api.repo(Repo::model(repo.to_owned()));
            let metadata = api.metadata(&repository.url(file))?;
            // They become names of files.
            check_name("commit", metadata.commit_hash(), !metadata.commit_hash().contains('/'))?;
            check_name("name of a blob", metadata.etag(), !metadata.etag().contains('/'))?;
            let cached = Cache::new(self.cache.clone()).repo(Repo::model(repo.to_owned()));
            let path = cached.pointer_path(metadata.commit_hash()).join(file);
            let is_there = path.is_file() && cached.get(file).as_ref() == Some(&path);
            Ok((if is_there { path } else { repository.download(file)? }, metadata))
        };
        let (path, metadata) = match fetched() {
            Ok(fetched) => fetched,
            Err(Failure::Name(error)) => return Err(error),
            Err(Failure::Api(source)) => return self.failed(repo, file, source),
        };
        self.check(repo, file, &path, &metadata)?;
        Ok(Some(path))
    }

    fn api(&self) -> Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.trim_end_matches('/').to_owned())
            .with_token(self.token.clone())
            .with_retries(RETRIES)
            .with_progress(self.shows_progress)
            .build()
    }

    fn failed(&self, repo: &str, file: &str, source: ApiError) -> Result<Option<PathBuf>, Error> {
        let (repo, endpoint) = (repo.to_owned(), self.endpoint.clone());
        match &source {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(404) => return Ok(None),
                ureq::Error::StatusCode(status @ (401 | 403)) => {
                    return Err(Error::Refused { repo, endpoint, status });
                }
                _ => {}
            },
            _ => {}
        }
        Err(Error::Request { repo, file: file.to_owned(), endpoint, source: Box::new(source) })
    }

    /// Compares a fetched file with what the server announced, and removes it if it differs.
    fn check(&self, repo: &str, file: &str, path: &Path, metadata: &Metadata) -> Result<(), Error> {
        let cache = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Cache { path, source }
        };
        let blob = path.canonicalize().map_err(cache(path))?;
        let (length, sha256) = length_and_sha256(&blob).map_err(cache(&blob))?;
        let is_sha256 = metadata.etag().len() == 64;
        let (what, expected, found) = if length != metadata.size() as u64 {
            ("a length of", metadata.size().to_string(), length.to_string())
        } else if is_sha256 && metadata.etag() != sha256 {
            ("sha256", metadata.etag().to_owned(), sha256)
        } else {
            return Ok(());
        };
        for gone in [path, &blob] {
            fs::remove_file(gone).map_err(cache(gone))?;
        }
        let (repo, file) = (repo.to_owned(), file.to_owned());
        Err(Error::Damaged { repo, file, what, expected, found })
    }
}

enum Failure {
    Api(ApiError),
    Name(Error),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Api(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Name(error)
    }
}

/// Refuses what is more than names below one another.
fn check_name(what: &'static str, name: &str, has_form: bool) -> Result<(), Error> {
    let is_name = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain) && !part.starts_with('.')
    };
    if has_form && name.split('/').all(is_name) {
        return Ok(());
    }
    Err(Error::Name { what, name: name.chars().take(100).collect() })
}

fn length_and_sha256(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hasher, mut length) = (File::open(path)?, Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => {
                hasher.update(&piece[..read]);
                length += read as u64;
            }
        }
    }
    Ok((length, hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
