//! Publishes an artifact of many small parts: the artifact layer with no stage around it, for the tests that kill writers and
//! let them race.
//!
//! `publisher UNIT_FILE STORE NUM_PARTS SHARD` writes the missing parts of the shard (`I/N`), then the record if nothing is
//! missing any more. It prints how many parts were there with other content.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use artifacts::{ArtifactWriter, FileContext, PromptRow, SchemaInfo};
use pipeline_spec::{Store, Unit};

/// Rows of each class in a part.
const NUM_ROWS: u32 = 25;
const CLASSES: [&str; 2] = ["cat", "dog"];

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [unit, store, num_parts, shard] = &arguments[..] else {
        return Err("expected UNIT_FILE STORE NUM_PARTS SHARD".into());
    };
    let unit: Unit = serde_json::from_slice(&std::fs::read(unit)?)?;
    let writer =
        ArtifactWriter::open(&Store::new(store), &unit, num_parts.parse()?, FileContext::new("test"))?;
    let info = SchemaInfo { class_names: CLASSES.map(str::to_owned).to_vec(), ..SchemaInfo::default() };
    for part in writer.missing_parts(shard.parse()?) {
        writer.write_part(part, &rows(part), &info)?;
    }
    writer.finish("none", started)?;
    Ok(writeln!(std::io::stdout(), "{}", writer.conflicts().len())?)
}

fn rows(part: u32) -> Vec<PromptRow> {
    let row = |class_id: u32, index: u32| PromptRow {
        class_id,
        class_name: CLASSES[class_id as usize].to_owned(),
        prompt_index: part * NUM_ROWS + index,
        prompt: format!("prompt {index} of part {part}"),
        template: String::new(),
        provider: "test".to_owned(),
        model: String::new(),
        answer: None,
    };
    (0..2).flat_map(|class_id| (0..NUM_ROWS).map(move |index| row(class_id, index))).collect()
}
