//! One thing to compute.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::{ArtifactId, Error, Key, StageSpec, key::key_of};

/// What a stage binary is given by `--spec`: the specification and the artifacts it reads.
///
/// ```toml
/// [spec]
/// kind = "metrics"
/// spec = { dataset = "emoji" }
///
/// [inputs]
/// predictions = "predictions-v1/emoji/zero-shot-0123456789abcdef0123456789abcdef"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// What to compute.
    pub spec: StageSpec,
    /// The artifacts it reads, by the names of [`StageSpec::input_slots`].
    pub inputs: BTreeMap<String, ArtifactId>,
}

impl Unit {
    /// The artifact that this unit yields.
    pub fn output(&self) -> ArtifactId {
        let keys: BTreeMap<String, Key> =
            self.inputs.iter().map(|(n, id)| (n.clone(), id.key.clone())).collect();
        ArtifactId {
            kind: self.spec.kind(),
            dataset: self.spec.dataset().clone(),
            slug: self.spec.slug(),
            key: key_of(&self.spec, &keys),
        }
    }

    /// The artifact given as input `name`.
    ///
    /// # Errors
    ///
    /// Fails if the unit does not name it.
    pub fn input(&self, name: &str) -> Result<&ArtifactId, Error> {
        self.inputs.get(name).ok_or_else(|| Error::Input {
            unit: self.output().to_string(),
            input: name.to_owned(),
            problem: "is missing; name the artifact under `[inputs]`".to_owned(),
        })
    }

    /// Reads and checks a unit file (JSON if the name ends so, TOML otherwise).
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, has an unknown or missing field, or its inputs do not fit the stage.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let parsed = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        let unit: Self =
            parsed.map_err(|reason| Error::Malformed { path: path.into(), what: "unit file", reason })?;
        unit.check()?;
        Ok(unit)
    }

    /// Checks the values of the spec and that the inputs are those that the stage reads.
    ///
    /// # Errors
    ///
    /// Fails with the first field or input that does not fit.
    pub fn check(&self) -> Result<(), Error> {
        self.spec.check()?;
        let slots = self.spec.input_slots();
        let fault = |input: &str, problem: String| Error::Input {
            unit: self.output().to_string(),
            input: input.to_owned(),
            problem,
        };
        for slot in &slots {
            match self.inputs.get(slot.name) {
                None => {
                    return Err(fault(slot.name, format!("is missing; expected a `{}` artifact", slot.kind)));
                }
                Some(id) if id.kind != slot.kind => {
                    return Err(fault(
                        slot.name,
                        format!("is a `{}` artifact, expected `{}`", id.kind, slot.kind),
                    ));
                }
                Some(_) => {}
            }
        }
        match self.inputs.keys().find(|name| slots.iter().all(|slot| slot.name != name.as_str())) {
            Some(name) => Err(fault(name, "is not read by this stage; remove it".to_owned())),
            None => Ok(()),
        }
    }
}
