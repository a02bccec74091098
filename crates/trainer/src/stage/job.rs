//! One training run: what it reads, what it has found, and how that is published.

use std::path::Path;

use artifacts::{ArtifactReader, ArtifactWriter, FileSource};
use flier_model::run::{EMA_FILE, LOG_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, EpochSummary, RunDescription, Selection};
use pipeline_spec::Unit;
use pipeline_spec::spec::CheckpointsSpec;

use super::Settings;
use crate::Error;
use crate::backbone::Backbone;
use crate::class_texts::{ClassTexts, class_texts};
use crate::shot_list::ShotList;

/// What a method has found, ready to be written.
pub(super) struct Found {
    pub(super) classifier: Classifier,
    pub(super) class_names: Vec<String>,
    pub(super) shot_list_digest: Option<String>,
    pub(super) selection: Selection,
    pub(super) has_ema: bool,
    pub(super) final_loss: Option<f64>,
    pub(super) epochs: Vec<EpochSummary>,
    pub(super) log: Vec<serde_json::Value>,
}

/// One training run.
pub(super) struct Job<'a> {
    pub(super) unit: &'a Unit,
    pub(super) spec: &'a CheckpointsSpec,
    pub(super) settings: &'a Settings<'a>,
    /// Folder of the training state.
    pub(super) work_dir: &'a Path,
    /// Folder of finished files before they are published.
    pub(super) staging: &'a Path,
}

impl Job<'_> {
    pub(super) fn reader(&self, input: &str) -> Result<ArtifactReader, Error> {
        Ok(ArtifactReader::open(self.settings.store, self.unit.input(input)?)?)
    }

    pub(super) fn backbone(&self) -> Result<Backbone, Error> {
        Backbone::open(&self.spec.backbone, self.settings.weights, self.settings.device)
    }

    /// The texts of the text classifier that the spec asks for.
    pub(super) fn class_texts(&self, class_names: &[String]) -> Result<Vec<ClassTexts>, Error> {
        let spec = self.spec.class_texts.as_ref().ok_or_else(|| pipeline_spec::Error::Field {
            field: "class_texts".to_owned(),
            problem: "expected the texts of the text classifier, found none".to_owned(),
        })?;
        class_texts(spec, class_names, || self.reader("prompts"))
    }

    pub(super) fn shot_list(&self) -> Result<ShotList, Error> {
        let shots = self.spec.shots.ok_or_else(|| pipeline_spec::Error::Field {
            field: "shots".to_owned(),
            problem: "expected the number of shots of the list, found none".to_owned(),
        })?;
        ShotList::open(&self.reader("fewshot-splits")?, Some((shots, self.spec.seed)))
    }

    /// Writes the description and publishes everything at once.
    pub(super) fn publish(&self, found: Found, writer: &ArtifactWriter) -> Result<(), Error> {
        let spec = self.spec;
        let log = if found.log.is_empty() { epoch_lines(&found.epochs) } else { json_lines(&found.log) };
        let run = RunDescription {
            run: spec.run.clone(),
            method: spec.method_name.clone(),
            dataset: spec.dataset.to_string(),
            backbone: flier_model::Backbone {
                id: spec.backbone.id.clone(),
                digest: spec.backbone.digest.to_string(),
            },
            class_names: found.class_names,
            shots: spec.shots,
            seed: spec.seed,
            shot_list_digest: found.shot_list_digest,
            classifier: found.classifier,
            selection: found.selection,
            has_ema: found.has_ema,
            final_loss: found.final_loss,
            epochs: found.epochs,
        };
        run.check()?;
        run.write(&self.staging.join(RUN_FILE))?;
        let weights = self.staging.join(WEIGHTS_FILE);
        let (run_file, ema) = (self.staging.join(RUN_FILE), self.staging.join(EMA_FILE));
        let mut files = vec![
            (WEIGHTS_FILE, FileSource::Path(&weights)),
            (RUN_FILE, FileSource::Path(&run_file)),
            (LOG_FILE, FileSource::Bytes(log.as_bytes())),
        ];
        if run.has_ema {
            files.push((EMA_FILE, FileSource::Path(&ema)));
        }
        writer.write_files(&files)?;
        Ok(())
    }
}

/// One JSON object a line.
fn epoch_lines(epochs: &[EpochSummary]) -> String {
    let values: Vec<_> = epochs.iter().map(|epoch| serde_json::json!(epoch)).collect();
    json_lines(&values)
}

fn json_lines(values: &[serde_json::Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}
