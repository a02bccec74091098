//! The stack machine: every instruction that weights need, and no other.

use std::collections::HashMap;

use safetensors::Dtype;

use super::{Global, Id, MAX_RANK, PickleError, Tensor, Value};

/// The names that weights need.
fn global(module: &str, name: &str) -> Option<Global> {
    if module == "__torch__" || module.starts_with("__torch__.") {
        return Some(Global::Class);
    }
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "device") => Global::Unread,
        // What PyTorch Lightning and numpy leave beside the weights of a training checkpoint.
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") => Global::Unread,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Unread,
        ("numpy", "dtype") | ("_codecs", "encode") => Global::Unread,
        ("torch", "Size") => Global::Identity,
        (
            "torch.jit._pickle",
            "build_intlist" | "build_boollist" | "build_doublelist" | "build_tensorlist",
        ) => Global::Identity,
        ("torch.jit._pickle", "restore_type_tag") => Global::Identity,
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        _ => return None,
    })
}

/// A pickle under way.
#[derive(Default)]
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Bytes read.
    pub(super) at: usize,
    /// Where the instruction under way begins.
    instruction: usize,
    /// Every value made so far; the stack and the memo refer to them by index.
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// A machine at the start of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Machine { bytes, ..Machine::default() }
    }

    /// Runs one instruction; the root at the stop instruction.
    pub(super) fn step(&mut self) -> Result<Option<Id>, PickleError> {
        self.instruction = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            // PROTO, FRAME
            0x80 => self.take(1).map(drop)?,
            0x95 => self.take(8).map(drop)?,
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => self.integer(4, true)?,
            b'K' => self.integer(1, false)?,
            b'M' => self.integer(2, false)?,
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Float);
            }
            // SHORT_BINUNICODE, BINUNICODE
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            // EMPTY_LIST, APPEND, APPENDS
            b']' => self.push(Value::List(Vec::new())),
            b'a' | b'e' => self.append(opcode == b'e')?,
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new())),
            b's' | b'u' => self.set_items(opcode == b'u')?,
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' | b'r' | 0x94 => self.put(opcode)?,
            b'h' | b'j' => self.get(opcode)?,
            // GLOBAL, STACK_GLOBAL, BINPERSID, REDUCE, NEWOBJ, BUILD
            b'c' => self.global()?,
            0x93 => self.stack_global()?,
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            0x81 => self.new_object()?,
            b'b' => self.build()?,
            opcode => return Err(PickleError::Opcode { opcode, offset: self.instruction }),
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Result<&[u8], PickleError> {
        let truncated = PickleError::Truncated { offset: self.bytes.len() };
        let end = self.at.checked_add(len).ok_or(truncated.clone())?;
        let bytes = self.bytes.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(bytes)
    }

    /// An unsigned little-endian number of at most 8 bytes.
    fn unsigned(&mut self, len: usize) -> Result<u64, PickleError> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let len = len.ok_or(PickleError::Truncated { offset: self.bytes.len() })?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn wrong(&self, expected: &'static str, found: &'static str) -> PickleError {
        PickleError::Value { offset: self.instruction, expected, found }
    }

    fn expected(&self, expected: &'static str, found: Id) -> PickleError {
        self.wrong(expected, self.values[found].kind())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err(self.wrong("a value", "an empty stack")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("a mark", "none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| self.wrong("a value", "an empty stack"))
    }

    fn integer(&mut self, len: usize, is_signed: bool) -> Result<(), PickleError> {
        let number = self.unsigned(len)?;
        let value = if is_signed { i64::from(number as u32 as i32) } else { number as i64 };
        self.push(Value::Int(value));
        Ok(())
    }

    fn long(&mut self) -> Result<(), PickleError> {
        let len = self.unsigned(1)? as usize;
        let offset = self.instruction;
        let bytes = self.take(len)?;
        if len > 8 {
            return Err(PickleError::Value {
                offset,
                expected: "an integer of 64 bits",
                found: "a longer one",
            });
        }
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..len].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self, len_bytes: usize) -> Result<(), PickleError> {
        let len = self.unsigned(len_bytes)? as usize;
        let text = std::str::from_utf8(self.take(len)?).map(str::to_owned);
        let text = text.map_err(|_| self.wrong("a text", "bytes that are not UTF-8"))?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn append(&mut self, is_many: bool) -> Result<(), PickleError> {
        let items = if is_many { self.pop_to_mark()? } else { vec![self.pop()?] };
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            _ => return Err(self.expected("a list", list)),
        }
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), PickleError> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn set_items(&mut self, is_many: bool) -> Result<(), PickleError> {
        let items = if is_many {
            self.pop_to_mark()?
        } else {
            let value = self.pop()?;
            vec![self.pop()?, value]
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.wrong("keys with values", "a key alone"));
        }
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.expected("a dictionary", dict)),
        }
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Result<(), PickleError> {
        let slot = match opcode {
            b'q' => self.unsigned(1)? as u32,
            b'r' => self.unsigned(4)? as u32,
            _ => self.memo.len() as u32,
        };
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), PickleError> {
        let slot = self.unsigned(if opcode == b'h' { 1 } else { 4 })? as u32;
        let id = self.memo.get(&slot).copied();
        self.stack.push(id.ok_or_else(|| self.wrong("a value that was kept", "an empty slot"))?);
        Ok(())
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_global(&module, &name)
    }

    fn stack_global(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
            return Err(self.expected("a module and a name", name));
        };
        let (module, name) = (module.clone(), name.clone());
        self.push_global(&module, &name)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = global(module, name).ok_or_else(|| {
            // A hostile name may be a megabyte long.
            PickleError::Global { name: format!("{module}.{name}").chars().take(200).collect() }
        })?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// `("storage", type, key, location, number of elements)`, and no view of it in the old format.
    fn persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Value::Tuple(items) = &self.values[id] else {
            return Err(self.expected("a storage's tuple", id));
        };
        let parts: Vec<&Value> = items.iter().map(|&item| &self.values[item]).collect();
        let storage = match (&parts[..], &items[..]) {
            (
                [
                    Value::Text(tag),
                    Value::Global(Global::Storage(dtype)),
                    Value::Text(_),
                    _,
                    Value::Int(count),
                ]
                | [
                    Value::Text(tag),
                    Value::Global(Global::Storage(dtype)),
                    Value::Text(_),
                    _,
                    Value::Int(count),
                    Value::None,
                ],
                [_, _, key, ..],
            ) if tag == "storage" && *count >= 0 => {
                Value::Storage { dtype: *dtype, key: *key, num_elements: count.unsigned_abs() }
            }
            _ => return Err(self.wrong("`storage`, a type, a key, a place and a size", "another tuple")),
        };
        self.push(storage);
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let offset = self.instruction;
        let Value::Global(function) = self.values[function] else {
            return Err(PickleError::Call { found: self.values[function].kind(), offset });
        };
        let Value::Tuple(items) = &self.values[arguments] else {
            return Err(self.expected("a tuple of arguments", arguments));
        };
        match function {
            Global::OrderedDict if items.is_empty() => self.push(Value::Dict(Vec::new())),
            Global::OrderedDict => return Err(self.wrong("no arguments of `OrderedDict`", "some")),
            Global::RebuildTensor => {
                let tensor = self.tensor(items)?;
                self.push(Value::Tensor(tensor));
            }
            Global::RebuildParameter | Global::Identity => {
                let first = items.first().copied();
                self.stack.push(first.ok_or_else(|| self.wrong("an argument", "none"))?);
            }
            Global::Unread => self.push(Value::Unread),
            Global::Class => return Err(PickleError::Call { found: "a TorchScript class", offset }),
            Global::Storage(_) => return Err(PickleError::Call { found: "a storage class", offset }),
        }
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`.
    fn tensor(&self, arguments: &[Id]) -> Result<Tensor, PickleError> {
        let &[storage, offset, shape, strides, _, _] = arguments.get(..6).unwrap_or_default() else {
            return Err(self.wrong("six arguments of `_rebuild_tensor_v2`", "fewer"));
        };
        if !matches!(self.values[storage], Value::Storage { .. }) {
            return Err(self.expected("a storage", storage));
        }
        let Value::Int(offset) = self.values[offset] else { return Err(self.expected("an offset", offset)) };
        let (shape, strides) = (self.integers(shape)?, self.integers(strides)?);
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(self.wrong("as many strides as axes, at most 8", "another number"));
        }
        Ok(Tensor { storage, offset, shape, strides })
    }

    fn integers(&self, id: Id) -> Result<Vec<i64>, PickleError> {
        let Value::Tuple(items) = &self.values[id] else {
            return Err(self.expected("a tuple of integers", id));
        };
        // No longer tuple is copied: one tuple may serve many tensors.
        let integer = |&item: &Id| match self.values[item] {
            Value::Int(number) => Ok(number),
            _ => Err(self.expected("an integer", item)),
        };
        items.iter().take(MAX_RANK + 1).map(integer).collect()
    }

    fn new_object(&mut self) -> Result<(), PickleError> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        let Value::Global(Global::Class) = self.values[class] else {
            return Err(PickleError::Call { found: self.values[class].kind(), offset: self.instruction });
        };
        if !matches!(&self.values[arguments], Value::Tuple(items) if items.is_empty()) {
            return Err(self.expected("no arguments of a TorchScript class", arguments));
        }
        self.push(Value::Object(None));
        Ok(())
    }

    /// Sets an object's attributes; those of a dictionary (`_metadata` of a state dict) are no weights.
    fn build(&mut self) -> Result<(), PickleError> {
        let (state, object) = (self.pop()?, self.top()?);
        if matches!(self.values[object], Value::Unread) {
            return Ok(());
        }
        if !matches!(self.values[state], Value::Dict(_)) {
            return Err(self.expected("a dictionary of attributes", state));
        }
        match &mut self.values[object] {
            Value::Object(attributes) => *attributes = Some(state),
            Value::Dict(_) => {}
            _ => return Err(self.expected("a module", object)),
        }
        Ok(())
    }
}
