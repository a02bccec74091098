//! `docs/artifacts.md` is what the schema code says.

#[test]
fn the_page_on_artifacts_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/artifacts.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page == artifacts::docs::markdown(),
        "run `cargo run --release -p artifacts --example schema_docs > docs/artifacts.md`"
    );
}
