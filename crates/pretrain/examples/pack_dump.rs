//! temporary
fn main() {
    use artifacts::*;
    use pipeline_spec::*;
    let a: Vec<String> = std::env::args().collect();
    let dump = std::path::Path::new(&a[1]);
    let store = Store::new(&a[2]);
    let names: Vec<String> = serde_json::from_slice(&std::fs::read(dump.join("classes.json")).unwrap()).unwrap();
    let splits = ["base", "test", "shift", "val", "train"];
    let mut rows = vec![];
    for s in splits {
        for l in std::fs::read_to_string(dump.join(s).join("captions.jsonl")).unwrap().lines() {
            let v: serde_json::Value = serde_json::from_str(l).unwrap();
            let t = |k: &str| v[k].as_str().map(str::to_owned);
            rows.push(ImageRow {
                sample_id: t("sample_id").unwrap(), split: s.into(), label: v["label"].as_u64().map(|x| x as u32), class_name: v["label"].as_u64().map(|x| names[x as usize].clone()),
                caption: t("caption"), source: t("artist").unwrap(),
                image: ImageFile { bytes: std::fs::read(dump.join(s).join(t("file").unwrap())).unwrap(), path: format!("{}.png", t("sample_id").unwrap()) },
            });
        }
    }
    rows.sort_by(|a, b| (a.label, &a.sample_id).cmp(&(b.label, &b.sample_id)));
    let unit: Unit = serde_json::from_slice(&std::fs::read(&a[3]).unwrap()).unwrap();
    let t = std::time::Instant::now();
    let w = ArtifactWriter::open(&store, &unit, 1, FileContext::new("0")).unwrap();
    let info = SchemaInfo { class_names: names, ..Default::default() };
    for p in w.missing_parts(Shard::default()) { w.write_part(p, &rows, &info).unwrap(); }
    if let Outcome::Finished(r) = w.finish("none", t).unwrap() { println!("{}", r.id); }
}
