//! Reading one field at a time, so that an error names the file and the field.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

use crate::Error;

/// The fields of a JSON object and where they come from.
pub(crate) struct Fields {
    origin: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads the JSON object in `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let map = serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })?;
        Ok(Self { origin: path.display().to_string(), map })
    }

    /// Fields that do not come from a file; `origin` names them in errors.
    pub(crate) fn from_map(origin: &str, map: Map<String, Value>) -> Self {
        Self { origin: origin.to_owned(), map }
    }

    /// Where the fields come from.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The value of `field`; `None` if it is missing or null.
    pub(crate) fn optional<T: DeserializeOwned>(
        &self,
        field: &str,
        expected: &str,
    ) -> Result<Option<T>, Error> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Error::config(&self.origin, field, expected, format!("`{value}`"))),
            },
        }
    }

    /// The value of `field`, or `default` if it is missing or null.
    pub(crate) fn or<T: DeserializeOwned>(
        &self,
        field: &str,
        expected: &str,
        default: T,
    ) -> Result<T, Error> {
        Ok(self.optional(field, expected)?.unwrap_or(default))
    }

    /// Fails if `field` is there with a value other than those allowed; null counts as missing.
    pub(crate) fn only(&self, field: &str, allowed: &[Value]) -> Result<(), Error> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if allowed.contains(value) => Ok(()),
            Some(value) => {
                let mut names: Vec<_> = allowed.iter().map(|v| format!("`{v}`")).collect();
                if names.is_empty() {
                    names.push("no value".to_owned());
                }
                Err(Error::config(&self.origin, field, names.join(" or "), format!("`{value}`")))
            }
        }
    }
}

/// Writes `config` with the given constant fields as sorted, indented JSON.
pub(crate) fn write_json(
    config: &impl Serialize,
    constants: &[(&str, Value)],
    path: &Path,
) -> Result<(), Error> {
    let json = |source| Error::Json { path: path.into(), source };
    let mut value = serde_json::to_value(config).map_err(json)?;
    if let Value::Object(map) = &mut value {
        map.extend(constants.iter().map(|(field, constant)| ((*field).to_owned(), constant.clone())));
    }
    let text = serde_json::to_string_pretty(&value).map_err(json)?;
    std::fs::write(path, text + "\n").map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::from_map("config.json", value.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn a_wrong_type_names_file_field_expected_and_found() {
        let error = fields(json!({"sample_size": "x"}))
            .optional::<usize>("sample_size", "a positive integer")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`config.json`: field `sample_size`: expected a positive integer, found `\"x\"`");
    }

    #[test]
    fn null_is_a_missing_value() {
        let fields = fields(json!({"class_embed_type": null}));
        assert!(fields.only("class_embed_type", &[]).is_ok());
        assert_eq!(fields.or("class_embed_type", "a number", 3).unwrap(), 3);
    }
}
