//! What arrives, and what does not.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use hub::{Error, Hub};

use crate::server::{Behaviour, Server, sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn content() -> Vec<u8> {
    (0..200_000_u32).flat_map(|i| (i % 251).to_le_bytes()).collect()
}

fn behaviour() -> Behaviour {
    let files = vec![("model.safetensors", content()), ("config.json", b"{}".to_vec())];
    Behaviour {
        repo: "org/model",
        files,
        etag: None,
        commit: COMMIT,
        breaks_after: None,
        token: None,
        redirects: false,
    }
}

fn hub(cache: &Path, server: &Server) -> Hub {
    let (cache, endpoint) = (cache.to_owned(), server.endpoint.clone());
    Hub { cache, endpoint, token: None, is_offline: false, shows_progress: false }
}

/// Regular files below the cache, the locks aside.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() { files(&path) } else { vec![path] }
        })
        .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
        .collect();
    all.sort();
    all
}

#[test]
fn file_arrives_in_the_layout_of_the_cache() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start(behaviour()));
    let hub = hub(dir.path(), &server);
    let path = hub.fetch("org/model", "model.safetensors").unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), content());
    let repository = dir.path().join("models--org--model");
    assert_eq!(path, repository.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(repository.join("blobs").join(sha256(&content())).is_file());
    assert!(hub.fetch("org/model", "config.json").unwrap().unwrap().ends_with("config.json"));
    assert_eq!(hub.fetch("org/model", "pytorch_model.bin").unwrap(), None);
    assert_eq!(hub.fetch("org/other", "config.json").unwrap(), None);
    // The second time only what is new is asked for: one request for the announcement, none for the bytes.
    let before = server.num_requests();
    assert_eq!(hub.fetch("org/model", "model.safetensors").unwrap().unwrap(), path);
    assert_eq!(server.num_requests(), before + 1);
}

#[test]
fn bytes_may_come_from_another_address() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { redirects: true, ..behaviour() });
    let path = hub(dir.path(), &server).fetch("org/model", "model.safetensors").unwrap().unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert!(server.requests.lock().unwrap().iter().any(|request| request.starts_with("GET /elsewhere/")));
}

#[test]
fn wrong_digest_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { etag: Some("5e".repeat(32)), ..behaviour() });
    let error = hub(dir.path(), &server).fetch("org/model", "model.safetensors").unwrap_err();
    let Error::Damaged { what: "sha256", expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, found), (&"5e".repeat(32), &sha256(&content())));
    let left: Vec<PathBuf> = files(dir.path());
    assert_eq!(left, [dir.path().join("models--org--model/refs/main")]);
}

#[test]
fn refusal_names_the_token_and_a_token_opens_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { token: Some("hf_secret"), ..behaviour() });
    let mut hub = hub(dir.path(), &server);
    let error = hub.fetch("org/model", "config.json").unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
    assert!(error.to_string().contains("`HF_TOKEN`") && error.to_string().contains("`org/model`"), "{error}");
    assert!(files(dir.path()).is_empty());
    hub.token = Some("hf_secret".to_owned());
    assert!(hub.fetch("org/model", "config.json").unwrap().is_some());
}

#[test]
fn broken_transfer_is_an_error_and_the_next_call_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // One try and three more give two thirds of the file.
    let server = Server::start(Behaviour { breaks_after: Some(content().len() / 6), ..behaviour() });
    let hub = hub(dir.path(), &server);
    let error = hub.fetch("org/model", "model.safetensors").unwrap_err();
    assert!(matches!(&error, Error::Request { .. }), "{error}");
    assert!(error.to_string().contains("`model.safetensors` of `org/model`"), "{error}");
    assert!(error.source().is_some());
    assert!(!dir.path().join("models--org--model/snapshots").exists(), "no snapshot of half a file");
    let path = hub.fetch("org/model", "model.safetensors").unwrap().unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
}

#[test]
fn server_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut hub = Hub::from_variables(dir.path().to_owned(), |_| None);
    assert_eq!(hub.endpoint, "https://huggingface.co");
    hub.endpoint = format!("http://{free}");
    let error = hub.fetch("org/model", "config.json").unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error}");
}

#[test]
fn offline_makes_no_request() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start(behaviour()));
    for value in ["1", "ON", "yes", "True"] {
        let hub = Hub::from_variables(dir.path().to_owned(), |name| match name {
            "HF_ENDPOINT" => Some(server.endpoint.clone()),
            "HF_HUB_OFFLINE" => Some(value.to_owned()),
            _ => None,
        });
        let error = hub.fetch("org/model", "model.safetensors").unwrap_err();
        assert!(matches!(error, Error::Offline { .. }), "{error}");
        for part in ["`model.safetensors` of `org/model`", "HF_HUB_OFFLINE", &*dir.path().to_string_lossy()] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert_eq!(server.num_requests(), 0);
    let hub =
        Hub::from_variables(dir.path().to_owned(), |name| (name == "HF_HUB_OFFLINE").then(|| "0".to_owned()));
    assert!(!hub.is_offline);
}

#[test]
fn token_comes_from_the_variable_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("hub");
    let token = |variable: Option<&str>| {
        let given = variable.map(str::to_owned);
        Hub::from_variables(cache.clone(), |name| given.clone().filter(|_| name == "HF_TOKEN")).token
    };
    assert_eq!(token(None), None);
    fs::write(dir.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(token(None).as_deref(), Some("hf_file"));
    assert_eq!(token(Some("hf_variable")).as_deref(), Some("hf_variable"));
    assert_eq!(token(Some(" ")).as_deref(), Some("hf_file"));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(behaviour());
    let client = hub(dir.path(), &server);
    for (repo, file) in [
        ("../model", "config.json"),
        ("model", "config.json"),
        ("org/model/more", "config.json"),
        ("org/mo del", "config.json"),
        ("org/model", "../config.json"),
        ("org/model", "/config.json"),
        ("org/model", ""),
    ] {
        let error = client.fetch(repo, file).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{error}");
    }
    assert_eq!(server.num_requests(), 0);
    // Neither may a server choose where its files lie.
    for (commit, etag) in [("../../../elsewhere", "5e".repeat(32)), (COMMIT, "../../../elsewhere".to_owned())]
    {
        let server = Server::start(Behaviour { commit, etag: Some(etag), ..behaviour() });
        let error = hub(dir.path(), &server).fetch("org/model", "config.json").unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{error}");
    }
    assert!(files(dir.path()).is_empty());
}
