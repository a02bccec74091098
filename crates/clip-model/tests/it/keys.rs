//! Names, shapes and dtypes of public checkpoints against what the models expect, without weights.

use clip_model::{
    Activation, Backbone, Clip, KeyTable, Layout, ModifiedResNetConfig, Pretrained, TextConfig, VisionConfig,
    expected_keys,
};

use crate::golden::{device, path};

/// One line of a key list.
struct Row {
    key: String,
    shape: Vec<usize>,
    /// The columns after the shape.
    rest: Vec<String>,
}

fn list(name: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let parse =
        |shape: &str| shape.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect();
    let row = |line: &str| {
        let mut columns = line.split('\t');
        let (key, shape) = (columns.next().unwrap().to_owned(), parse(columns.next().unwrap()));
        Row { key, shape, rest: columns.map(str::to_owned).collect() }
    };
    text.lines().map(row).collect()
}

/// Names and shapes of the rows that a parameter must read; the others the table must allow.
fn required(rows: &[Row], is_extra: impl Fn(&Row) -> bool) -> Vec<(String, Vec<usize>)> {
    let required = rows.iter().filter(|row| !is_extra(row));
    required.map(|row| (row.key.clone(), row.shape.clone())).collect()
}

fn clip(backbone: &str) -> Clip {
    Backbone::by_name(backbone).unwrap().config(Activation::QuickGelu).init(&device())
}

/// Backbones of both of open_clip's and OpenAI's files with their key lists.
const OPEN_CLIP: [(&str, &str); 9] = [
    ("RN50", "rn50"),
    ("RN101", "rn101"),
    ("RN50x4", "rn50x4"),
    ("RN50x16", "rn50x16"),
    ("RN50x64", "rn50x64"),
    ("ViT-B/32", "vit_b_32"),
    ("ViT-B/16", "vit_b_16"),
    ("ViT-L/14", "vit_l_14"),
    ("ViT-L/14@336px", "vit_l_14_336"),
];

#[test]
fn open_clip_files_have_the_expected_keys() {
    for (backbone, name) in OPEN_CLIP {
        let clip = clip(backbone);
        let rows = list(&format!("{name}.keys.tsv"));
        let is_extra = |row: &Row| row.rest[0] == "-" || row.key.ends_with("num_batches_tracked");
        let expected = expected_keys(&clip, &clip.key_table_of(Layout::OpenClip));
        assert_eq!(expected, required(&rows, is_extra), "{backbone}");
        assert!(rows.iter().all(|row| is_extra(row) || row.rest[0] == "F32"), "{backbone}");
    }
}

#[test]
fn openai_files_have_the_expected_keys() {
    for (backbone, name) in OPEN_CLIP {
        let clip = clip(backbone);
        let rows = list(&format!("{name}.keys.tsv"));
        let extras: Vec<&Row> = rows.iter().filter(|row| row.rest[1] == "I64").collect();
        let names = ["context_length", "input_resolution", "num_batches_tracked", "vocab_size"];
        assert!(extras.iter().all(|row| names.iter().any(|name| row.key.ends_with(name))), "{backbone}");
        let expected = expected_keys(&clip, &clip.key_table_of(Layout::OpenAi));
        assert_eq!(expected, required(&rows, |row| row.rest[1] == "I64"), "{backbone}");
        // Convolutions, linear layers, attention and projections are halves, everything else is not.
        for row in rows.iter().filter(|row| row.rest[1] == "F16") {
            let kinds = ["conv", "downsample", "proj", "c_fc"];
            assert!(kinds.iter().any(|kind| row.key.contains(kind)), "{backbone}: {}", row.key);
        }
    }
}

#[test]
fn transformers_files_have_the_expected_keys() {
    for (backbone, name) in [
        ("ViT-B/32", "clip_vit_base_patch32"),
        ("ViT-B/16", "clip_vit_base_patch16"),
        ("ViT-L/14", "clip_vit_large_patch14"),
        ("ViT-L/14@336px", "clip_vit_large_patch14_336"),
    ] {
        let clip = clip(backbone);
        let rows = list(&format!("{name}.keys.tsv"));
        let expected = expected_keys(&clip, &clip.key_table_of(Layout::Transformers));
        assert_eq!(expected, required(&rows, |row| row.rest[1] == "extra"), "{backbone}");
        assert_eq!(rows.iter().filter(|row| row.rest[1] == "extra").count(), 2, "{backbone}");
    }
}

#[test]
fn stable_diffusion_2_text_encoder_has_the_published_keys() {
    let config = TextConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        hidden_act: Activation::Gelu,
        ..Backbone::by_name("ViT-B/32").unwrap().config(Activation::Gelu).text_config
    };
    let table = KeyTable::new().with_prefix("text_model");
    let rows = list("sd2_text_encoder.keys.tsv");
    assert_eq!(expected_keys(&config.init(&device()), &table), required(&rows, |_| false));
}

#[test]
fn registry_holds_what_open_clip_publishes() {
    let rows = std::fs::read_to_string(path("pretrained.tsv")).unwrap();
    let ours: Vec<String> = Pretrained::all()
        .iter()
        .map(|weights| {
            let activation = match weights.activation {
                Activation::QuickGelu => "quick_gelu",
                Activation::Gelu => "gelu",
            };
            [
                weights.backbone,
                weights.tag,
                activation,
                // The values as the script prints them; the table's are the nearest f32.
                if weights.mean[0] == 0.5 { "0.5" } else { "0.48145466" },
                &weights.url().unwrap_or_default(),
                weights.sha256.unwrap_or_default(),
                weights.open_clip_repo.unwrap_or_default(),
            ]
            .join("\t")
        })
        .collect();
    assert_eq!(ours, rows.lines().collect::<Vec<_>>());
    assert!(Pretrained::all().iter().all(|weights| Backbone::by_name(weights.backbone).is_ok()));
}

#[test]
fn backbones_answer_to_all_their_names() {
    for (name, known) in [
        ("ViT-B/32", "ViT-B/32"),
        ("ViT-B-32", "ViT-B/32"),
        ("vit-b-16", "ViT-B/16"),
        ("ViT-B-32-quickgelu", "ViT-B/32"),
        ("RN50-quickgelu", "RN50"),
        ("ViT-L/14@336px", "ViT-L/14@336px"),
        ("ViT-L-14-336", "ViT-L/14@336px"),
        ("rn50x4", "RN50x4"),
    ] {
        assert_eq!(Backbone::by_name(name).unwrap().name, known);
    }
    let error = Backbone::by_name("ViT-Q/32").unwrap_err().to_string();
    assert!(error.starts_with("unknown backbone `ViT-Q/32`; known: RN50, RN101"), "{error}");
    let error = Pretrained::by_name("RN101", "laion2b").unwrap_err().to_string();
    assert_eq!(error, "unknown weights `laion2b`; known: openai, yfcc15m");
    let VisionConfig::ModifiedResNet(vision) =
        Backbone::by_name("RN50x4").unwrap().config(Activation::QuickGelu).vision_config
    else {
        panic!("not a ResNet")
    };
    let expected = ModifiedResNetConfig { layers: [4, 6, 10, 6], width: 80, heads: 40, image_size: 288 };
    assert_eq!(vision, expected);
}
