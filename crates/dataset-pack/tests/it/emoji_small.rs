//! The emoji form over archives made here, so that joining, splitting and rendering are tested without the
//! network.

use std::ops::ControlFlow;
use std::path::Path;

use dataset_pack::pack::{Encoding, check_leaks, encode_all};
use dataset_pack::{Error, Item, load};
use flate2::Compression;
use flate2::write::GzEncoder;
use pipeline_spec::data_manifest::{DataManifest, Form};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
dataset = "small"
description = "Two classes of four emoji, three artists."
templates = ["a {}"]

[form.emoji]
vocabulary = "words"
drop_subgroups = ["country-flag"]
series = [["1F400", "1F401"]]
[form.emoji.split]
min_train_images = 2
min_base_images = 0
min_val_images = 2
test_percent = 50
max_test_images = 100
max_group = 2
[form.emoji.expected]
[[form.emoji.classes]]
name = "animal"
subgroups = ["animal-mammal"]
except = []
[[form.emoji.classes]]
name = "food"
subgroups = ["food-fruit"]
except = ["1F34D"]
[[form.emoji.artists]]
source = "ann"
role = "train"
join = "chars"
skip = []
names = {}
[[form.emoji.artists]]
source = "bob"
role = "train"
join = "label-slug"
skip = ["1F402"]
names = { 1F400 = "old-rat" }
[[form.emoji.artists]]
source = "eve"
role = "shift"
join = "label-joined"
skip = []
names = {}
"#;

/// Emoji: code point, label, subgroup.
const EMOJI: [(u32, &str, u32); 12] = [
    (0x1F400, "big rat", 0),
    (0x1F401, "big mouse", 0),
    (0x1F402, "big ox", 0),
    (0x1F403, "big cow", 0),
    (0x1F404, "big cat", 0),
    (0x1F405, "big dog", 0),
    (0x1F345, "red fruit", 1),
    (0x1F346, "blue fruit", 1),
    (0x1F347, "green fruit", 1),
    (0x1F348, "pink fruit", 1),
    (0x1F34D, "no fruit", 1),
    (0x1F1E6, "flag", 2),
];

fn archive(folder: &Path, name: &str, files: &[(&str, Value)]) {
    let path = folder.join(format!("{name}.tgz"));
    let mut tar =
        tar::Builder::new(GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast()));
    for (name, json) in files {
        let data = serde_json::to_vec(json).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("package/{name}"), data.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

/// A drawing that no other emoji and no other artist has.
fn body(code: u32, artist: u32) -> Value {
    let (x, y) = (code % 7, artist * 2);
    let color = format!("#{:06x}", code.wrapping_mul(2_654_435_761) & 0x7f_ffff);
    json!({"body": format!("<rect x=\"{x}\" y=\"{y}\" width=\"3\" height=\"3\" fill=\"{color}\"/>")})
}

fn icons(artist: u32, name_of: impl Fn(u32, &str) -> String) -> Value {
    let icons: serde_json::Map<String, Value> =
        EMOJI.iter().map(|(code, label, _)| (name_of(*code, label), body(*code, artist))).collect();
    json!({"prefix": "x", "icons": icons, "width": 12, "height": 12})
}

/// Writes the archives and gives the manifest with their digests.
pub fn small(root: &Path, change: impl Fn(&str) -> String) -> DataManifest {
    let folder = root.join("small");
    std::fs::create_dir_all(&folder).unwrap();
    let data: Vec<Value> = EMOJI
        .iter()
        .map(|(code, label, subgroup)| {
            json!({"hexcode": format!("{code:X}-FE0F"), "label": label, "tags": ["tag"], "subgroup": subgroup})
        })
        .collect();
    let groups = json!({"subgroups": {"0": "animal-mammal", "1": "food-fruit", "2": "country-flag"}});
    archive(&folder, "words", &[("en/data.json", json!(data)), ("meta/groups.json", groups)]);
    let chars: serde_json::Map<String, Value> =
        EMOJI.iter().map(|(code, _, _)| (format!("{code:x}"), json!(format!("icon-{code:x}")))).collect();
    archive(
        &folder,
        "ann",
        &[("icons.json", icons(0, |c, _| format!("icon-{c:x}"))), ("chars.json", json!(chars))],
    );
    let slug = |c, label: &str| if c == 0x1F400 { "old-rat".to_owned() } else { label.replace(' ', "-") };
    archive(&folder, "bob", &[("icons.json", icons(1, slug)), ("chars.json", json!({}))]);
    archive(
        &folder,
        "eve",
        &[("icons.json", icons(2, |_, l| l.replace(' ', ""))), ("chars.json", json!({}))],
    );
    let mut text = change(MANIFEST);
    for id in ["words", "ann", "bob", "eve"] {
        let (_, _, sha256) = pipeline_spec::file_digests(&folder.join(format!("{id}.tgz"))).unwrap();
        text += &format!(
            "[[sources]]\nid = \"{id}\"\nregistry = \"npm\"\npackage = \"{id}\"\nversion = \"1\"\nfile = \"{id}.tgz\"\n\
             sha256 = \"{sha256}\"\nlicense = \"MIT\"\nattribution = \"{id}\"\nurl = \"{id}\"\n"
        );
    }
    let path = root.join("small.toml");
    std::fs::write(&path, text).unwrap();
    DataManifest::read(&path).unwrap().0
}

/// Takes the counts that the rule gives as the expected ones.
pub fn accept_counts(manifest: &mut DataManifest, root: &Path) {
    let Form::Emoji(form) = &mut manifest.form else { panic!("not emoji") };
    form.expected.clear();
    for _ in 0..5 {
        let Err(Error::Count { split, found, .. }) = load(manifest, root) else { break };
        let Form::Emoji(form) = &mut manifest.form else { panic!("not emoji") };
        form.expected.insert(split, found);
    }
}

#[test]
fn drawings_are_joined_labelled_and_split() {
    let root = tempfile::tempdir().unwrap();
    let mut manifest = small(root.path(), str::to_owned);
    assert!(matches!(load(&manifest, root.path()), Err(Error::Count { expected: 0, .. })));
    accept_counts(&mut manifest, root.path());
    let dataset = load(&manifest, root.path()).unwrap();
    let find = |id: &str| dataset.items.iter().find(|i| i.sample_id == id);
    let rat: &Item = find("1F400-bob").unwrap();
    assert_eq!((rat.label, rat.class_name.as_deref()), (Some(0), Some("animal")));
    assert_eq!((rat.caption.as_str(), rat.origin.as_str()), ("big rat, tag", "bob"));
    assert_eq!(rat.split, find("1F401-ann").unwrap().split);
    assert!(find("1F402-ann").is_some() && find("1F402-bob").is_none(), "`skip` was not heeded");
    let except = find("1F34D-ann").unwrap();
    assert_eq!((except.label, except.split.as_str()), (None, "base"));
    assert!(find("1F1E6-ann").is_none(), "a dropped subgroup is there");
    for item in dataset.items.iter().filter(|i| i.origin == "eve") {
        assert_eq!(item.split, "shift");
        assert_eq!(find(&item.sample_id.replace("eve", "ann")).unwrap().split, "test");
    }
    assert!(dataset.count("shift") > 0 && dataset.count("train") >= 4 && dataset.count("val") >= 4);
    let items: Vec<_> = dataset.items.iter().collect();
    let bytes = encode_all(&dataset, &items, drawings(24), || ControlFlow::Continue(())).unwrap();
    assert_eq!(bytes, encode_all(&dataset, &items, drawings(24), || ControlFlow::Continue(())).unwrap());
    check_leaks(items.iter().copied().zip(bytes.iter().map(Vec::as_slice))).unwrap();
    let (train, test) = (items.iter().find(|i| i.split == "train"), items.iter().find(|i| i.split == "test"));
    let error = check_leaks([(*train.unwrap(), &b"same"[..]), (*test.unwrap(), &b"same"[..])]).unwrap_err();
    assert!(error.to_string().contains("`series`"), "{error}");
}

#[test]
fn names_that_do_not_exist_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let refuse = |from: &str, to: &str| {
        let manifest = small(root.path(), |t| t.replace(from, to));
        load(&manifest, root.path()).unwrap_err().to_string()
    };
    let message = refuse("food-fruit", "food-fruits");
    assert!(message.contains("no Unicode subgroup is called `food-fruits`"), "{message}");
    let message = refuse("\"old-rat\"", "\"older-rat\"");
    assert!(message.contains("`bob` has no icon `older-rat`"), "{message}");
    let message = refuse("except = [\"1F34D\"]", "except = [\"1F34E\"]");
    assert!(message.contains("classes.except") && message.contains("`1F34E`"), "{message}");
}

/// How drawings of `image_size` pixels are made.
pub fn drawings(image_size: u32) -> Encoding {
    Encoding { image_size, stored: None, max_pixels: 1 << 24 }
}
