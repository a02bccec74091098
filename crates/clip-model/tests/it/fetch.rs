//! Published models that are on no disk of this machine: the example's way from a name to a file.

use std::fs;

use clip_model::{Checkpoint, Error, HubCache, OpenAiCache, Pretrained};
use hub::Hub;

use crate::golden::{device, path};

#[path = "../../examples/encode/fetch.rs"]
mod example;
#[path = "../../../hub/tests/it/server.rs"]
#[allow(dead_code)] // what the tests of `hub` need
mod server;

use example::find_or_fetch;
use server::{Behaviour, Server};

/// A hub whose `openai/clip-vit-base-patch32` is a golden model, cut in files.
fn behaviour() -> Behaviour {
    let names = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let read = |name| (name, fs::read(path("checkpoints/sharded").join(name)).unwrap());
    Behaviour {
        repo: "openai/clip-vit-base-patch32",
        files: names.map(read).to_vec(),
        etag: None,
        commit: "0123abcd",
        breaks_after: None,
        token: None,
        redirects: true,
    }
}

fn client(cache: &HubCache, endpoint: &str, is_offline: bool) -> Hub {
    let (cache, endpoint) = (cache.root.clone(), endpoint.to_owned());
    Hub { cache, endpoint, token: None, is_offline, shows_progress: false }
}

#[test]
fn absent_model_is_fetched_once_with_all_files_of_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, openai) = (HubCache { root: dir.path().join("hub") }, OpenAiCache { root: "no/clip".into() });
    let server = Server::start(behaviour());
    let model = Pretrained::by_repository("openai/clip-vit-base-patch32").unwrap();
    assert_eq!((model.backbone, model.tag), ("ViT-B/32", "openai"));
    let hub = client(&cache, &server.endpoint, false);
    let found = find_or_fetch(model, &cache, &openai, &hub).unwrap();
    assert!(found.ends_with("snapshots/0123abcd/model.safetensors.index.json"), "{}", found.display());
    Checkpoint::open(&found, None).unwrap().load(&device()).unwrap();
    let requests = server.num_requests();
    assert_eq!(find_or_fetch(model, &cache, &openai, &hub).unwrap(), found);
    assert_eq!(server.num_requests(), requests, "what is in the cache is not asked for");
    // A file that went missing is fetched again; the others are compared, not fetched.
    fs::remove_file(found.with_file_name("model-00002-of-00002.safetensors")).unwrap();
    assert_eq!(find_or_fetch(model, &cache, &openai, &hub).unwrap(), found);
    Checkpoint::open(&found, None).unwrap().load(&device()).unwrap();
}

#[test]
fn absent_model_without_network_is_an_error_that_says_what_to_put_where() {
    let (cache, openai) = (HubCache { root: "no/hub".into() }, OpenAiCache { root: "no/clip".into() });
    let server = Server::start(behaviour());
    let model = Pretrained::by_name("ViT-B/32", "openai").unwrap();
    let error = find_or_fetch(model, &cache, &openai, &client(&cache, &server.endpoint, true)).unwrap_err();
    let text = format!("{error:#}");
    for part in [
        "weights of `ViT-B/32 (openai)` are not on this machine",
        "--weights",
        "at `no/clip/ViT-B-32.pt`",
        "`model.safetensors` and `config.json` of `openai/clip-vit-base-patch32`",
        "`HF_HUB_OFFLINE` is set",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(server.num_requests(), 0);
}

#[test]
fn unknown_repository_is_answered_with_the_known_ones() {
    let error = Pretrained::by_repository("openai/clip-vit-base-patch23").unwrap_err();
    assert!(matches!(error, Error::UnknownName { what: "repository", .. }), "{error}");
    for known in ["openai/clip-vit-base-patch32", "timm/resnet50_clip.openai"] {
        assert!(error.to_string().contains(known), "{error}");
    }
}
