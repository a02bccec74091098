//! Reading the pickles of torch files without running them.
//!
//! A pickle is a program for a stack machine that may import and call anything. This machine knows the instructions and the
//! names that weights need; whatever else a pickle asks for is an error that names it. Nothing is imported or called: a
//! tensor becomes a record of where its numbers lie.

mod error;
mod machine;

use safetensors::Dtype;

pub use error::PickleError;
use machine::Machine;

/// Most instructions of one pickle; a training checkpoint of the largest CLIP takes about 100,000.
const MAX_STEPS: usize = 1_000_000;
/// Deepest nesting of modules and dictionaries.
const MAX_DEPTH: usize = 32;
/// Most tensors.
const MAX_TENSORS: usize = 20_000;
/// Most attributes of a module and of those within.
const MAX_ATTRIBUTES: usize = 200_000;
/// Longest name of a tensor in bytes.
const MAX_NAME: usize = 512;
/// Most axes of a tensor.
const MAX_RANK: usize = 8;

/// Index of a value.
type Id = usize;

/// A name that a pickle may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A function that gives back its first argument, such as `torch.jit._pickle.build_intlist`.
    Identity,
    /// A class or function whose value nobody reads, such as `torch.device` or a training log's.
    Unread,
    /// A class of TorchScript, whose objects are plain attributes here.
    Class,
    Storage(Dtype),
}

#[derive(Debug)]
enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        dtype: Dtype,
        key: Id,
        num_elements: u64,
    },
    Tensor(Tensor),
    /// A TorchScript object and the dictionary of its attributes.
    Object(Option<Id>),
    Unread,
}

#[derive(Debug)]
struct Tensor {
    storage: Id,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// A tensor as a pickle describes it; nothing of it is checked against the file.
#[derive(Debug)]
pub(in crate::weights) struct TensorRecord<'a> {
    pub name: String,
    pub dtype: Dtype,
    /// Name of the storage.
    pub storage: &'a str,
    /// Elements of the storage.
    pub num_elements: u64,
    /// First element.
    pub offset: i64,
    pub shape: &'a [i64],
    /// Per axis, in elements.
    pub strides: &'a [i64],
}

/// A pickle that was read.
pub(in crate::weights) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes read, the stop instruction included.
    pub len: usize,
}

/// What a walk through modules has found.
struct Walk<'a> {
    tensors: Vec<TensorRecord<'a>>,
    num_attributes: usize,
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::None => "nothing",
            Value::Bool => "a truth value",
            Value::Int(_) => "an integer",
            Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dictionary",
            Value::Global(_) => "a class or function",
            Value::Storage { .. } => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Object(_) => "a module",
            Value::Unread => "a value beside the weights",
        }
    }
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    pub(in crate::weights) fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        for _ in 0..MAX_STEPS {
            if let Some(root) = machine.step()? {
                return Ok(Pickle { values: machine.values, root, len: machine.at });
            }
        }
        Err(PickleError::TooLarge { what: "instructions", limit: MAX_STEPS })
    }

    /// The texts of a list of texts.
    pub(in crate::weights) fn texts(&self) -> Result<Vec<&str>, PickleError> {
        let expected = "a list of texts";
        let refuse =
            |value: &Value| PickleError::Content { name: String::new(), expected, found: value.kind() };
        let Value::List(items) = &self.values[self.root] else { return Err(refuse(&self.values[self.root])) };
        let text = |&id: &Id| match &self.values[id] {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(refuse(other)),
        };
        items.iter().map(text).collect()
    }

    /// Name and bytes of every storage.
    pub(in crate::weights) fn storages(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        self.values.iter().filter_map(|value| match *value {
            Value::Storage { dtype, key, num_elements } => match &self.values[key] {
                Value::Text(name) => {
                    Some((name.as_str(), num_elements.checked_mul(dtype.bitsize() as u64 / 8)))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether the root is a TorchScript module.
    pub(in crate::weights) fn is_module(&self) -> bool {
        matches!(self.values[self.root], Value::Object(_))
    }

    /// The named tensors: the attributes of a module and of those within, or the items of a state dict, which may stand below
    /// the key `state_dict` of a training checkpoint.
    pub(in crate::weights) fn tensors(&self) -> Result<Vec<TensorRecord<'_>>, PickleError> {
        let mut tensors = Vec::new();
        match &self.values[self.root] {
            Value::Object(_) => {
                let mut walk = Walk { tensors, num_attributes: 0 };
                self.walk_module(self.root, "", 0, &mut walk)?;
                tensors = walk.tensors;
            }
            Value::Dict(items) => {
                let inner =
                    items.iter().find_map(|&(key, value)| match (&self.values[key], &self.values[value]) {
                        (Value::Text(key), Value::Dict(inner)) if key == "state_dict" => Some(inner),
                        _ => None,
                    });
                for &(key, value) in inner.unwrap_or(items) {
                    let name = self.name("", key)?;
                    let Value::Tensor(tensor) = &self.values[value] else {
                        let found = self.values[value].kind();
                        return Err(PickleError::Content { name, expected: "a tensor", found });
                    };
                    tensors.push(self.record(name, tensor)?);
                }
            }
            other => {
                let (name, expected) = ("the file".to_owned(), "a state dict or a TorchScript module");
                return Err(PickleError::Content { name, expected, found: other.kind() });
            }
        }
        if tensors.len() > MAX_TENSORS {
            return Err(PickleError::TooLarge { what: "tensors", limit: MAX_TENSORS });
        }
        Ok(tensors)
    }

    fn walk_module<'a>(
        &'a self,
        module: Id,
        prefix: &str,
        depth: usize,
        walk: &mut Walk<'a>,
    ) -> Result<(), PickleError> {
        if depth > MAX_DEPTH {
            return Err(PickleError::TooLarge { what: "levels of modules", limit: MAX_DEPTH });
        }
        let Value::Object(Some(attributes)) = self.values[module] else { return Ok(()) };
        let Value::Dict(attributes) = &self.values[attributes] else { return Ok(()) };
        // Modules that hold another one twice double the walk at every level.
        walk.num_attributes += attributes.len();
        if walk.num_attributes > MAX_ATTRIBUTES {
            return Err(PickleError::TooLarge { what: "attributes of modules", limit: MAX_ATTRIBUTES });
        }
        for &(key, value) in attributes {
            let name = || self.name(prefix, key);
            match &self.values[value] {
                Value::Tensor(tensor) => walk.tensors.push(self.record(name()?, tensor)?),
                Value::Object(_) => self.walk_module(value, &name()?, depth + 1, walk)?,
                // Settings such as `training` are no weights.
                _ => {}
            }
        }
        Ok(())
    }

    fn name(&self, prefix: &str, key: Id) -> Result<String, PickleError> {
        let Value::Text(text) = &self.values[key] else {
            let (name, found) = (format!("a key of `{prefix}`"), self.values[key].kind());
            return Err(PickleError::Content { name, expected: "a text", found });
        };
        if prefix.len() + text.len() > MAX_NAME {
            return Err(PickleError::TooLarge { what: "bytes in the name of a tensor", limit: MAX_NAME });
        }
        Ok(if prefix.is_empty() { text.clone() } else { format!("{prefix}.{text}") })
    }

    fn record<'a>(&'a self, name: String, tensor: &'a Tensor) -> Result<TensorRecord<'a>, PickleError> {
        if let Value::Storage { dtype, key, num_elements } = self.values[tensor.storage]
            && let Value::Text(storage) = &self.values[key]
        {
            let Tensor { offset, ref shape, ref strides, .. } = *tensor;
            return Ok(TensorRecord { name, dtype, storage, num_elements, offset, shape, strides });
        }
        let found = self.values[tensor.storage].kind();
        Err(PickleError::Content { name, expected: "a tensor with a storage", found })
    }
}
