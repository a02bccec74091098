//! Prints `docs/artifacts.md`: `cargo run --release -p artifacts --example schema_docs > docs/artifacts.md`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(artifacts::docs::markdown().as_bytes())
}
