//! The state of an unfinished training: parameters, optimizer, average, step.
//!
//! ```text
//! <state>/step-000500/state.json  model.bpk  average.bpk  optimizer.bpk
//! <state>/metrics.jsonl
//! ```
//!
//! A state is written as `tmp-...` and renamed; the older one goes afterwards. A kill at any moment leaves a whole state.

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// What a state belongs to; a run only continues its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunId {
    /// Digest of the recipe.
    pub recipe: String,
    /// Names of the inputs: the images artifact, and digests of models that are built on.
    pub inputs: Vec<String>,
    /// Device.
    pub device: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    run: RunId,
    step: usize,
    elapsed_s: f64,
}

/// A training between two steps.
pub struct Training<M> {
    /// The trained copy, on an autodiff device.
    pub model: M,
    /// Average of the parameters for inference, where the recipe keeps one.
    pub average: Option<M>,
    /// Optimizer.
    pub optimizer: ModuleOptimizer,
    /// Steps done.
    pub step: usize,
    /// Seconds spent.
    pub elapsed_s: f64,
}

/// A folder for the state of one training.
#[derive(Debug, Clone)]
pub struct StateDir {
    dir: PathBuf,
    run: RunId,
}

impl StateDir {
    /// The state of `run` in `dir`, which is made if missing.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be made.
    pub fn open(dir: &Path, run: RunId) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        Ok(Self { dir: dir.to_path_buf(), run })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Publishes the state of `training` and removes older ones.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn save<M: Module>(&self, training: &Training<M>) -> Result<(), Error> {
        let name = format!("step-{:06}", training.step);
        let (target, tmp) = (self.dir.join(&name), self.dir.join(format!("tmp-{name}")));
        if target.exists() {
            return Ok(());
        }
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(Error::io(&tmp))?;
        }
        std::fs::create_dir(&tmp).map_err(Error::io(&tmp))?;
        save_module(training.model.clone(), &tmp.join("model.bpk"))?;
        if let Some(average) = &training.average {
            save_module(average.clone(), &tmp.join("average.bpk"))?;
        }
        let path = tmp.join("optimizer.bpk");
        training.optimizer.save(&path).map_err(|error| Error::record(&path, error))?;
        let file = StateFile { run: self.run.clone(), step: training.step, elapsed_s: training.elapsed_s };
        let path = tmp.join("state.json");
        std::fs::write(&path, serde_json::json!(file).to_string()).map_err(Error::io(&path))?;
        std::fs::rename(&tmp, &target).map_err(Error::io(&target))?;
        for older in self.states()?.into_iter().filter(|path| *path != target) {
            std::fs::remove_dir_all(&older).map_err(Error::io(&older))?;
        }
        Ok(())
    }

    /// Replaces `fresh` by the newest state, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or the state belongs to another recipe, input or device.
    pub fn resume<M: Module>(&self, fresh: Training<M>) -> Result<Training<M>, Error> {
        let Some(newest) = self.states()?.pop() else { return Ok(fresh) };
        let path = newest.join("state.json");
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let file: StateFile = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.clone(),
            expected: "the state of a training",
            source,
        })?;
        self.check(&newest, &file.run)?;
        let average = match fresh.average {
            Some(average) => Some(load_module(average, &newest.join("average.bpk"))?),
            None => None,
        };
        let path = newest.join("optimizer.bpk");
        Ok(Training {
            model: load_module(fresh.model, &newest.join("model.bpk"))?,
            average,
            optimizer: fresh.optimizer.load(&path).map_err(|error| Error::record(&path, error))?,
            step: file.step,
            elapsed_s: file.elapsed_s,
        })
    }

    fn check(&self, path: &Path, found: &RunId) -> Result<(), Error> {
        let pairs = [
            ("recipe", self.run.recipe.clone(), found.recipe.clone()),
            ("inputs", self.run.inputs.join(", "), found.inputs.join(", ")),
            ("device", self.run.device.clone(), found.device.clone()),
        ];
        for (field, expected, found) in pairs {
            if expected != found {
                return Err(Error::OtherRun { path: path.to_path_buf(), field, expected, found });
            }
        }
        Ok(())
    }

    /// Finished states, oldest first.
    fn states(&self) -> Result<Vec<PathBuf>, Error> {
        let mut states = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let entry = entry.map_err(Error::io(&self.dir))?;
            if entry.file_name().to_string_lossy().starts_with("step-") {
                states.push(entry.path());
            }
        }
        states.sort();
        Ok(states)
    }
}

fn save_module<M: Module>(module: M, path: &Path) -> Result<(), Error> {
    // Batch norms hold the last update of their statistics back until they are synchronised, which `valid` does; clones
    // share the statistics, so the record below has them.
    let _synchronised = module.clone().valid();
    module.into_record().save(path).map_err(|error| Error::record(path, error))
}

fn load_module<M: Module>(module: M, path: &Path) -> Result<M, Error> {
    let record = ModuleRecord::load(path).map_err(|error| Error::record(path, error))?;
    module.try_load_record(record).map_err(|error| Error::record(path, error))
}
