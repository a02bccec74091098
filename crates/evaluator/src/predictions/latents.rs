//! Predictions from latents: what the latent branch of a run says of held-out images.

use std::collections::HashMap;
use std::ops::ControlFlow;

use artifacts::{ArtifactReader, ImageRow, LatentRow, PredictionRow};
use burn::tensor::{Tensor, TensorData};
use pipeline_spec::spec::PredictionsSpec;
use pipeline_spec::{ArtifactId, StageSpec, Unit};

use super::{Labelled, Settings, TrainedRun};
use crate::Error;

impl TrainedRun {
    pub(super) fn predict_latents(
        &self,
        unit: &Unit,
        spec: &PredictionsSpec,
        settings: &Settings<'_>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<PredictionRow>>, Error> {
        let images = ArtifactReader::open(settings.store, unit.input("images")?)?;
        let latents = ArtifactReader::open(settings.store, unit.input("latents")?)?;
        check_source(&latents, &images.record().id, &spec.splits)?;
        self.check_classes(&images, "images")?;
        self.check_classes(&latents, "latents")?;
        let mut held_out = held_out(&images, &spec.splits)?;
        let [channels, height, width] = latents.latent_shape()?;
        let total = held_out.len();
        let (mut rows, mut is_stopped) = (Vec::with_capacity(total), false);
        latents.for_each_part::<LatentRow, Error>(|_, part| {
            // The row of an encoded image names it as its prompt.
            let named = part.into_iter().filter_map(|row| Some((held_out.remove(&row.prompt)?, row.latent)));
            let mut named = named.peekable();
            while named.peek().is_some() {
                is_stopped = is_stopped || progress(rows.len(), total).is_break();
                if is_stopped {
                    return Ok(());
                }
                let (labelled, batch): (Vec<_>, Vec<_>) = named.by_ref().take(settings.batch.max(1)).unzip();
                let batch = TensorData::new(batch.concat(), [labelled.len(), channels, height, width]);
                let batch = Tensor::<4>::from_data(batch, settings.device);
                self.extend(&mut rows, labelled, self.classifier.logits_from_latents(batch)?)?;
            }
            Ok(())
        })?;
        if is_stopped {
            return Ok(None);
        }
        match held_out.keys().min() {
            None => Ok(Some(rows)),
            Some(sample_id) => Err(Error::Latents {
                artifact: Box::new(latents.record().id.clone()),
                expected: format!("a latent of image `{sample_id}`"),
                found: "none".to_owned(),
            }),
        }
    }
}

/// Fails unless `latents` are those of all images of `splits` in `images`.
fn check_source(latents: &ArtifactReader, images: &ArtifactId, splits: &[String]) -> Result<(), Error> {
    let unit = &latents.record().unit;
    let show =
        |images: &ArtifactId, splits: &[String]| format!("`{images}`, splits `{}`", splits.join("`, `"));
    let found = match (&unit.spec, unit.inputs.get("images")) {
        (StageSpec::EncodedLatents(spec), Some(found)) => {
            let encoded = spec.splits.as_deref().unwrap_or_default();
            if found.key == images.key && splits.iter().all(|split| encoded.contains(split)) {
                return Ok(());
            }
            match &spec.splits {
                Some(encoded) => show(found, encoded),
                None => format!("`{found}`, the images of a shot list"),
            }
        }
        _ => "generated samples".to_owned(),
    };
    Err(Error::Latents {
        artifact: Box::new(latents.record().id.clone()),
        expected: format!("the encoded images of {}", show(images, splits)),
        found,
    })
}

/// The images of `splits`, by identifier.
fn held_out(images: &ArtifactReader, splits: &[String]) -> Result<HashMap<String, Labelled>, Error> {
    let mut held_out = HashMap::new();
    images.for_each_part::<ImageRow, Error>(|_, part| {
        for ImageRow { sample_id, split, label, .. } in part.into_iter().filter(|r| splits.contains(&r.split))
        {
            let Some(label) = label else { return Err(Error::Unlabelled { sample_id, split }) };
            held_out.insert(sample_id.clone(), Labelled { sample_id, split, label });
        }
        Ok(())
    })?;
    Ok(held_out)
}
