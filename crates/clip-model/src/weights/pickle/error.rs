//! Why a pickle is refused.

/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// A name that weights do not need: running it could do anything.
    #[error(
        "it asks for `{name}`, which no weights need; nothing was run. If you trust the file, save its state dict anew"
    )]
    Global {
        /// Module and name.
        name: String,
    },
    /// A call of something that is not a function for tensors.
    #[error("it calls {found} at byte {offset}; nothing was run")]
    Call {
        /// What would be called.
        found: &'static str,
        /// Position in the pickle.
        offset: usize,
    },
    /// An instruction that weights do not need.
    #[error("instruction {opcode:#04x} at byte {offset} is not one that weights need")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Position in the pickle.
        offset: usize,
    },
    /// The pickle ends early.
    #[error("it ends at byte {offset} inside an instruction")]
    Truncated {
        /// Position in the pickle.
        offset: usize,
    },
    /// An instruction finds another kind of value than it needs.
    #[error("byte {offset}: found {found}, expected {expected}")]
    Value {
        /// Position in the pickle.
        offset: usize,
        /// What the instruction needs.
        expected: &'static str,
        /// What it finds.
        found: &'static str,
    },
    /// The pickle holds something else than named tensors.
    #[error("`{name}` is {found}, expected {expected}")]
    Content {
        /// Where, dotted.
        name: String,
        /// What weights have there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// More of something than any checkpoint has.
    #[error("it has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}
