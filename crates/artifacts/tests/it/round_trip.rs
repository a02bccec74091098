//! What is written is read, and equal input gives equal bytes.

use std::fmt::Debug;
use std::fs;
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, Error, FileContext, FileSource, LatentRow, ModelAnswer, Outcome,
    PromptRow, Row, SchemaInfo, Shard, verify,
};
use pipeline_spec::{ArtifactKind, PartRecord, Unit};

use crate::rows;
use crate::store::{TempStore, finished};

fn check<R: Row + PartialEq + Debug>(rows: &[R], info: &SchemaInfo) {
    let unit = rows::unit(R::KIND);
    let (first, second) = (TempStore::new(), TempStore::new());
    let record = first.write(&unit, rows, info);
    let reader = first.reader(&record.id);
    assert_eq!(reader.rows::<R>().unwrap(), rows);
    assert_eq!(reader.class_names().unwrap(), info.class_names);
    assert_eq!(reader.tensor_shape().unwrap(), info.tensor_shape);
    assert_eq!(reader.record(), &record);
    assert_eq!((record.rows, record.parts.len()), (rows.len() as u64, 1));
    verify(&first.store, &record.id).unwrap();
    let again = second.write(&unit, rows, info);
    assert_eq!(fs::read(first.part(&record)).unwrap(), fs::read(second.part(&again)).unwrap(), "{}", R::KIND);
    assert_eq!(first.unfinished(), Vec::<String>::new());
}

#[test]
fn every_kind_is_read_as_it_was_written_and_written_again_byte_for_byte() {
    check(&rows::prompts(), &rows::class_info());
    check(&rows::latents(), &rows::tensor_info(&[2, 2, 3]));
    check(&rows::images(), &rows::class_info());
    check(&rows::fewshot(), &rows::class_info());
    check(&rows::features(), &rows::tensor_info(&[5]));
    check(&rows::predictions(), &rows::tensor_info(&[3]));
    check(&rows::metrics(), &SchemaInfo::default());
}

#[test]
fn a_sparse_column_is_written_only_where_a_row_has_a_value() {
    let info = rows::tensor_info(&[2, 2, 3]);
    let mut scored = rows::latents();
    scored[1].clip_score = Some(0.25);
    check(&scored, &info);
    let unit = rows::unit(ArtifactKind::Latents);
    let has_column = |rows: &[LatentRow]| {
        let store = TempStore::new();
        let bytes = fs::read(store.part(&store.write(&unit, rows, &info))).unwrap();
        bytes.windows(10).any(|window| window == b"clip_score")
    };
    assert!(has_column(&scored) && !has_column(&rows::latents()));
    scored[1].clip_score = Some(f32::NAN);
    let store = TempStore::new();
    let writer = ArtifactWriter::open(&store.store, &unit, 1, FileContext::new("0")).unwrap();
    let message = writer.write_part(0, &scored, &info).unwrap_err().to_string();
    assert!(message.contains("clip_score") && message.contains("NaN"), "{message}");
}

#[test]
fn answers_of_a_language_model_are_read_as_they_were_written() {
    let mut rows = rows::prompts();
    rows[0].answer = Some(ModelAnswer {
        seed: Some(7),
        finish_reason: Some("stop".to_owned()),
        response_id: Some("chatcmpl-\u{e9}".to_owned()),
        created: Some(u64::MAX),
    });
    // The second row of the same part has none, and no row has a fingerprint of its own.
    rows[2].answer = Some(ModelAnswer { seed: Some(0), ..ModelAnswer::default() });
    check(&rows, &rows::class_info());
}

#[test]
fn float_bits_survive() {
    let store = TempStore::new();
    let record =
        store.write(&rows::unit(ArtifactKind::Latents), &rows::latents(), &rows::tensor_info(&[2, 2, 3]));
    let read = store.reader(&record.id).rows::<LatentRow>().unwrap();
    let bits = |rows: &[LatentRow]| {
        rows.iter().flat_map(|r| r.latent.iter().map(|v| v.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(bits(&read), bits(&rows::latents()));
}

#[test]
fn many_row_groups_and_parts_keep_their_order() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Latents);
    let info = rows::tensor_info(&[4, 64, 64]);
    // 700 latents of 64 KiB are 45 MB: several row groups.
    let latent = |i: usize| {
        let mut values: Vec<f32> = (0..16384).map(|j| ((i * 7 + j) % 101) as f32 / 8.0).collect();
        artifacts::round_to_f16(&mut values);
        values
    };
    let template = &rows::latents()[0];
    let row = |i: usize| LatentRow {
        class_id: (i % 3) as u32,
        class_name: rows::CLASSES[i % 3].to_owned(),
        sample_index: i as u32,
        latent: latent(i),
        ..template.clone()
    };
    let all: Vec<LatentRow> = (0..700).map(row).collect();
    let writer = store.writer(&unit, 2);
    writer.write_part(0, &all[..600], &info).unwrap();
    writer.write_part(1, &all[600..], &info).unwrap();
    let record = finished(writer.finish("cpu", Instant::now()).unwrap());
    let reader = store.reader(&record.id);
    assert!(reader.rows::<LatentRow>().unwrap() == all);
    let mut sizes = Vec::new();
    let mut note = |part: &PartRecord, rows: Vec<LatentRow>| {
        sizes.push((part.rows, rows.len()));
        Ok::<(), Error>(())
    };
    reader.for_each_part(&mut note).unwrap();
    assert_eq!(sizes, [(600, 600), (100, 100)]);
    let per_latent = record.parts[0].size_bytes as f64 / 600.0;
    assert!(per_latent < 0.45 * 65536.0, "{per_latent} bytes per latent");
}

#[test]
fn files_of_a_checkpoint_are_a_verified_set() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Checkpoints);
    let source = store.scratch().join("weights.bin");
    fs::write(&source, [7; 100_000]).unwrap();
    let writer = store.writer(&unit, 1);
    assert_eq!(writer.missing_parts(Shard::default()), [0]);
    let files = [("run.json", FileSource::Bytes(b"{}")), ("model.safetensors", FileSource::Path(&source))];
    writer.write_files(&files).unwrap();
    assert_eq!(writer.missing_parts(Shard::default()), Vec::<u32>::new());
    let record = finished(writer.finish("cpu", Instant::now()).unwrap());
    let names: Vec<&str> = record.parts.iter().map(|p| p.file.as_str()).collect();
    assert_eq!(names, ["model.safetensors", "run.json"]);
    let reader = store.reader(&record.id);
    assert_eq!(fs::read(reader.file_path("model.safetensors").unwrap()).unwrap(), [7; 100_000]);
    let message = reader.file_path("optimizer.safetensors").unwrap_err().to_string();
    assert!(
        message.ends_with("has no file `optimizer.safetensors`; it has `model.safetensors`, `run.json`"),
        "{message}"
    );
    fs::write(store.store.data_dir(&record.id).join("run.json"), b"[]").unwrap();
    let message = reader.file_path("run.json").unwrap_err().to_string();
    assert!(message.contains("run.json`: blake3 differs"), "{message}");
    assert_eq!(verify(&store.store, &record.id).unwrap_err().len(), 1);
}

#[test]
fn a_second_set_of_files_never_mixes_with_the_first() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Checkpoints);
    let set = |text: &'static [u8]| {
        [("model.safetensors", FileSource::Bytes(text)), ("run.json", FileSource::Bytes(text))]
    };
    let first = store.writer(&unit, 1).write_files(&set(b"first")).unwrap();
    let writer = store.writer(&unit, 1);
    assert_eq!(writer.write_files(&set(b"other")).unwrap(), first);
    assert_eq!(writer.conflicts().len(), 2);
    for name in ["../x", "a/b", "", ".hidden"] {
        assert!(store.writer(&unit, 1).write_files(&[(name, FileSource::Bytes(b""))]).is_err(), "{name}");
    }
}

#[test]
fn the_record_names_inputs_and_circumstances() {
    let store = TempStore::new();
    let prompts = store.write(&rows::unit(ArtifactKind::Prompts), &rows::prompts(), &rows::class_info());
    let inputs = [("prompts".to_owned(), prompts.id.clone())].into();
    let unit = Unit { inputs, ..rows::unit(ArtifactKind::Latents) };
    let record = store.write(&unit, &rows::latents(), &rows::tensor_info(&[2, 2, 3]));
    assert_eq!(record.input_digests["prompts"], prompts.content_digest());
    assert_eq!((record.provenance.version.as_str(), record.provenance.device.as_str()), ("1.2.3", "none"));
    assert_ne!(record.id, rows::unit(ArtifactKind::Latents).output(), "an input is part of the key");
}

#[test]
fn without_its_record_an_artifact_is_not_there() {
    let store = TempStore::new();
    let record = store.write(&rows::unit(ArtifactKind::Prompts), &rows::prompts(), &rows::class_info());
    fs::remove_file(store.store.record_path(&record.id)).unwrap();
    let message = ArtifactReader::open(&store.store, &record.id).unwrap_err().to_string();
    assert!(message.contains("is not in the store") && message.contains("run its stage first"), "{message}");
}

#[test]
fn rows_of_another_kind_are_refused() {
    let store = TempStore::new();
    let record = store.write(&rows::unit(ArtifactKind::Prompts), &rows::prompts(), &rows::class_info());
    let message = store.reader(&record.id).rows::<LatentRow>().unwrap_err().to_string();
    assert!(message.ends_with("holds `prompts`, expected `latents`"), "{message}");
    let writer = store.writer(&rows::unit(ArtifactKind::Latents), 1);
    assert!(matches!(writer.write_part(0, &rows::prompts(), &rows::class_info()), Err(Error::Kind { .. })));
    assert!(matches!(
        writer.write_part(1, &rows::latents(), &rows::tensor_info(&[2, 2, 3])),
        Err(Error::PartIndex { index: 1, num_parts: 1, .. })
    ));
}

#[test]
fn values_that_cannot_be_meant_are_refused_before_they_are_committed() {
    let store = TempStore::new();
    let info = rows::tensor_info(&[2, 2, 3]);
    let refuse = |change: &dyn Fn(&mut LatentRow), expected: &str| {
        let mut rows = rows::latents();
        change(&mut rows[1]);
        let writer = store.writer(&rows::unit(ArtifactKind::Latents), 1);
        let message = writer.write_part(0, &rows, &info).unwrap_err().to_string();
        assert!(message.contains("`latents` row 1") && message.contains(expected), "{message}");
        assert_eq!(writer.missing_parts(Shard::default()), [0]);
    };
    refuse(&|r| r.latent[3] = f32::NAN, "`latent` is NaN at index 3, expected finite values");
    refuse(&|r| r.latent.fill(0.5), "`latent` is 0.5 everywhere");
    refuse(&|r| r.latent.truncate(11), "`latent` has 11 values, expected 12 (shape [2, 2, 3])");
    refuse(&|r| r.latent[0] = 1.0 + f32::EPSILON, "expected f16 precision");
    refuse(&|r| r.std = f32::INFINITY, "`std` is inf");
    refuse(&|r| r.class_id = 3, "`class_id` is 3, expected a label below the number of classes, 3");
    refuse(&|r| r.class_name = "chat".to_owned(), "`class_name` is `chat`, expected `écureuil`");
    refuse(&|r| r.image_png = b"GIF89a".to_vec(), "expected a PNG or JPEG file");
    refuse(&|r| r.image_png.clear(), "expected a PNG or JPEG file");
    refuse(&|r| *r = rows::latents()[0].clone(), "stands twice in the part (`0/1/0`)");
}

#[test]
fn a_description_that_does_not_fit_the_kind_is_refused() {
    let store = TempStore::new();
    let refuse = |info: &SchemaInfo, expected: &str| {
        let writer = store.writer(&rows::unit(ArtifactKind::Latents), 1);
        let message = writer.write_part(0, &rows::latents(), info).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refuse(&SchemaInfo::default(), "class_names is empty");
    refuse(&rows::class_info(), "tensor_shape is empty");
    refuse(&rows::tensor_info(&[usize::MAX, 2]), "expected 1 to 2^31-1 elements");
    let twice = SchemaInfo { class_names: vec!["a".to_owned(); 2], ..rows::tensor_info(&[12]) };
    refuse(&twice, "class_names holds `a` twice");
    let mut reserved = rows::tensor_info(&[2, 2, 3]);
    reserved.metadata.insert("key".to_owned(), "x".to_owned());
    refuse(&reserved, "flier.key is written by the artifact writer");
}

#[test]
fn an_artifact_without_rows_or_without_a_class_is_not_finished() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let writer = store.writer(&unit, 2);
    writer.write_part(0, &rows::prompts()[..1], &rows::class_info()).unwrap();
    writer.write_part(1, &rows::prompts()[..0], &rows::class_info()).unwrap();
    let message = writer.finish("none", Instant::now()).unwrap_err().to_string();
    assert!(message.ends_with("is not complete: no row for class `écureuil`, `🦊 fox`"), "{message}");
    let writer = store.writer(&rows::unit(ArtifactKind::Metrics), 1);
    writer.write_part(0, &rows::metrics()[..0], &SchemaInfo::default()).unwrap();
    let message = writer.finish("none", Instant::now()).unwrap_err().to_string();
    assert!(message.ends_with("it has no rows"), "{message}");
    assert!(!store.store.contains(writer.id()));
}

#[test]
fn parts_of_other_class_names_do_not_pass_as_one_artifact() {
    let store = TempStore::new();
    let writer = store.writer(&rows::unit(ArtifactKind::Prompts), 2);
    writer.write_part(0, &rows::prompts(), &rows::class_info()).unwrap();
    let mut other = rows::class_info();
    other.class_names.push("a fourth".to_owned());
    let mut late = rows::prompts();
    late.iter_mut().for_each(|r| r.prompt_index = 1);
    writer.write_part(1, &late, &other).unwrap();
    match writer.finish("none", Instant::now()) {
        Err(error) => assert!(error.to_string().contains("a fourth"), "{error}"),
        Ok(Outcome::Finished(record)) => {
            let message = store.reader(&record.id).rows::<PromptRow>().unwrap_err().to_string();
            assert!(message.contains("class names (against another part) differs"), "{message}");
        }
        Ok(missing) => panic!("{missing:?}"),
    }
}

#[test]
fn single_rows_of_many_row_groups_are_those_of_the_whole_part() {
    let store = TempStore::new();
    let info = rows::tensor_info(&[16, 64, 64]);
    let numel: u32 = 16 * 64 * 64;
    let template = rows::latents().remove(0);
    let row = |sample: u32| {
        let class_id = sample / 27;
        let class_name = rows::CLASSES[class_id as usize].to_owned();
        let mut row = LatentRow { class_id, class_name, sample_index: sample, ..template.clone() };
        row.latent = (0..numel).map(|i| ((i * 7 + sample * 13) % 2048) as f32 / 64.0).collect();
        row
    };
    let latents: Vec<_> = (0..80).map(row).collect();
    let record = store.write(&rows::unit(ArtifactKind::Latents), &latents, &info);
    let reader = store.reader(&record.id);
    assert_eq!(reader.rows::<LatentRow>().unwrap(), latents);
    let part = reader.open_part::<LatentRow>(0).unwrap().unwrap();
    assert_eq!(part.num_rows(), 80);
    for index in [79, 0, 31, 32, 40] {
        assert_eq!(part.row(index).unwrap().as_ref(), Some(&latents[index as usize]), "row {index}");
    }
    assert_eq!(part.row(80).unwrap(), None);
    assert!(reader.open_part::<LatentRow>(1).unwrap().is_none());
    let error = reader.open_part::<PromptRow>(0).unwrap_err().to_string();
    assert!(error.contains("flier.kind"), "{error}");
    // A damaged part is refused when it is opened.
    let path = store.part(&record);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(reader.open_part::<LatentRow>(0).unwrap_err().to_string().contains("blake3"));
}
