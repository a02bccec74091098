//! The page of `sd-latents gallery`.

use std::collections::BTreeSet;
use std::path::Path;

use artifacts::{ArtifactWriter, FileContext, LatentRow, SchemaInfo};
use pipeline_spec::{ArtifactId, Store};
use sd_latents::{Error, gallery::gallery};

use crate::{PROMPTS, Place, run};

/// Values of an attribute on the page.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    page.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

/// The page as a browser reads its paths: the template escapes `/` as well.
fn page(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("index.html")).unwrap().replace("&#x2f;", "/")
}

#[test]
fn the_page_shows_image_latent_and_prompt_of_every_sample() {
    let place = Place::new();
    let (store, unit) = place.unit("store", &PROMPTS, 2);
    run(&unit, &store, &place.weights(), artifacts::Shard::default(), 4).unwrap();
    let folder = place.folder.path().join("gallery");
    assert_eq!(gallery(&store, &unit.output(), usize::MAX, &folder).unwrap(), 12);
    let page = page(&folder);
    let pictures = values(&page, "src");
    assert_eq!(pictures.len(), 24);
    assert_eq!(pictures.iter().collect::<BTreeSet<_>>().len(), 24);
    for picture in pictures {
        let image = image::open(folder.join(picture)).unwrap();
        let side = if picture.starts_with("latents/") { 8 } else { 16 };
        assert_eq!((image.width(), image.height()), (side, side), "{picture}");
    }
    assert_eq!(values(&page, "data-class"), [["0"; 8].as_slice(), &["1"; 4]].concat());
    for text in ["a photo of a sea lion", "cat (8)", "sea lion (4)", "12 of 12 rows"] {
        assert!(page.contains(text), "no `{text}` in {page}");
    }
    // Nothing comes from elsewhere.
    assert!(!page.contains("http"));

    let Error::GalleryFolder { path } = gallery(&store, &unit.output(), 1, &folder).unwrap_err() else {
        panic!("a folder with files in it is refused")
    };
    assert_eq!(path, folder);
    let small = place.folder.path().join("small");
    assert_eq!(gallery(&store, &unit.output(), 1, &small).unwrap(), 2);
}

#[test]
fn text_of_prompts_and_names_stays_text() {
    let place = Place::new();
    let (_, unit) = place.unit("store", &PROMPTS, 1);
    let store = Store::new(place.folder.path().join("hostile"));
    let row = LatentRow {
        class_id: 0,
        class_name: "<img src=x>".to_owned(),
        prompt_index: 0,
        sample_index: 0,
        prompt: "\"></figure><script>alert('1')</script>".to_owned(),
        noise_seed: 1,
        latent: vec![0.0, 1.0, 2.0, 3.0],
        mean: 1.5,
        std: 1.0,
        image_png: b"\x89PNG\r\n\x1a\n".to_vec(),
        image_path: "../../evil.png".to_owned(),
        clip_score: Some(0.25),
    };
    let info = SchemaInfo {
        class_names: vec![row.class_name.clone()],
        tensor_shape: vec![4, 1, 1],
        ..SchemaInfo::default()
    };
    let id: ArtifactId = unit.output();
    let prompts = unit.inputs.values().next().unwrap();
    let copied = store.artifact_dir(prompts);
    std::fs::create_dir_all(&copied).unwrap();
    std::fs::copy(place.store("store").record_path(prompts), copied.join("artifact.json")).unwrap();
    let writer = ArtifactWriter::open(&store, &unit, 1, FileContext::new("test")).unwrap();
    writer.write_part(0, &[row], &info).unwrap();
    writer.finish("none", std::time::Instant::now()).unwrap();
    let folder = place.folder.path().join("gallery");
    gallery(&store, &id, usize::MAX, &folder).unwrap();
    let page = page(&folder);
    assert!(!page.contains("<script>alert") && !page.contains("<img src=x>"), "{page}");
    assert_eq!(values(&page, "data-class"), ["0"]);
    assert!(page.contains("CLIP score 0.250"), "{page}");
    assert!(!place.folder.path().join("evil.png").exists());
    assert_eq!(values(&page, "src"), ["images/000-000-000.png", "latents/000-000-000-0.png"]);
}
