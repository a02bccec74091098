//! Exit codes, those of `sysexits.h` where it has one.
//!
//! | code | meaning | what a scheduler should do |
//! |---|---|---|
//! | 0 | done, or done before | go on |
//! | 1 | failed for another reason | look at the log |
//! | 2 | bad arguments | correct the command |
//! | 65 | an input is missing or damaged | run the stage that makes it |
//! | 69 | a service or device is not available | start it |
//! | 73 | an output cannot be created | check permissions |
//! | 74 | reading or writing failed, for example a full disk | free space, run again |
//! | 75 | failed for the moment | run again |
//! | 78 | the unit file is bad | correct it |
//! | 130, 143 | stopped by SIGINT, SIGTERM | run again |

use std::io;

use crate::Interrupted;

/// Done, or done before.
pub const DONE: u8 = 0;
/// Failed for a reason without a code of its own.
pub const FAILED: u8 = 1;
/// Bad arguments.
pub const USAGE: u8 = 2;
/// An input is missing or damaged (`EX_DATAERR`).
pub const INPUT: u8 = 65;
/// A service or device is not available (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// An output cannot be created (`EX_CANTCREAT`).
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed, for example on a full disk (`EX_IOERR`).
pub const IO: u8 = 74;
/// Failed for the moment; the same command may succeed later (`EX_TEMPFAIL`).
pub const TRY_AGAIN: u8 = 75;
/// The unit file is bad (`EX_CONFIG`).
pub const BAD_SPEC: u8 = 78;
/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM.
pub const TERMINATED: u8 = 143;

/// Marks an error as a fault of the unit file, so that it ends in exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SpecFault(pub String);

/// Marks an error as a missing or damaged input, so that it ends in exit code 65; text and causes stay the error's.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InputFault(Box<dyn std::error::Error + Send + Sync>);

impl InputFault {
    /// Marks `error`.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// Marks an error with an exit code of this module; text and causes stay the error's.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct ExitWith {
    exit_code: u8,
    error: Box<dyn std::error::Error + Send + Sync>,
}

impl ExitWith {
    /// Marks `error`.
    pub fn new(exit_code: u8, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { exit_code, error: Box::new(error) }
    }
}

/// Exit code for an error of a stage: that of the first cause, from the outside in, that says one.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(FAILED)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(interrupted) = cause.downcast_ref::<Interrupted>() {
        return Some(interrupted.exit_code);
    }
    if cause.is::<SpecFault>() {
        return Some(BAD_SPEC);
    }
    if cause.is::<InputFault>() {
        return Some(INPUT);
    }
    if let Some(marked) = cause.downcast_ref::<ExitWith>() {
        return Some(marked.exit_code);
    }
    if cause.is::<clap::Error>() {
        return Some(USAGE);
    }
    if let Some(error) = cause.downcast_ref::<artifacts::Error>() {
        return Some(of_artifact(error));
    }
    if let Some(error) = cause.downcast_ref::<pipeline_spec::Error>() {
        return Some(of_contract(error));
    }
    cause.downcast_ref::<io::Error>().map(|e| of_io(e, INPUT))
}

fn of_artifact(error: &artifacts::Error) -> u8 {
    use artifacts::Error as E;
    match error {
        E::Contract(error) => of_contract(error),
        E::Write { source, .. } => of_io(source, CANNOT_CREATE),
        E::Read { source, .. } => of_io(source, INPUT),
        E::ReadBack { .. } => IO,
        E::Corrupt { .. }
        | E::SchemaVersion { .. }
        | E::Unparsable { .. }
        | E::Column { .. }
        | E::NoSuchFile { .. } => INPUT,
        E::Shard { .. } => USAGE,
        _ => FAILED,
    }
}

fn of_contract(error: &pipeline_spec::Error) -> u8 {
    use pipeline_spec::Error as E;
    match error {
        E::Io { source, .. } => of_io(source, INPUT),
        E::Malformed { what: "unit file" | "pipeline file" | "plan file", .. } => BAD_SPEC,
        E::Malformed { .. } | E::Corrupt { .. } | E::MissingArtifact { .. } => INPUT,
        E::InvalidId { .. } | E::Input { .. } | E::Field { .. } => BAD_SPEC,
        _ => FAILED,
    }
}

/// `otherwise` is the code of an operation that fails because of its path (missing, no permission).
fn of_io(error: &io::Error, otherwise: u8) -> u8 {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull
        | K::QuotaExceeded
        | K::FileTooLarge
        | K::UnexpectedEof
        | K::WriteZero
        | K::BrokenPipe => IO,
        K::WouldBlock | K::TimedOut | K::Interrupted | K::ResourceBusy | K::StaleNetworkFileHandle => {
            TRY_AGAIN
        }
        K::ConnectionRefused
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::HostUnreachable
        | K::NetworkUnreachable
        | K::NotConnected => UNAVAILABLE,
        K::NotFound
        | K::PermissionDenied
        | K::ReadOnlyFilesystem
        | K::NotADirectory
        | K::IsADirectory
        | K::AlreadyExists
        | K::InvalidFilename => otherwise,
        // EIO has no kind of its own.
        _ => IO,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        exit_code(&Err::<(), _>(error.into()).context("the outer context changes nothing").unwrap_err())
    }

    fn write(kind: io::ErrorKind) -> artifacts::Error {
        artifacts::Error::Write { path: "p".into(), free_bytes: Some(0), source: kind.into() }
    }

    #[test]
    fn a_full_disk_is_an_io_error_and_a_missing_permission_is_not() {
        assert_eq!(code(write(io::ErrorKind::StorageFull)), 74);
        assert_eq!(code(write(io::ErrorKind::QuotaExceeded)), 74);
        assert_eq!(code(write(io::ErrorKind::PermissionDenied)), 73);
        assert_eq!(code(write(io::ErrorKind::ReadOnlyFilesystem)), 73);
    }

    #[test]
    fn missing_and_damaged_inputs_are_65() {
        let missing = || pipeline_spec::Error::MissingArtifact { id: "a".to_owned(), store: "s".into() };
        assert_eq!(code(missing()), 65);
        assert_eq!(code(artifacts::Error::from(missing())), 65);
        assert_eq!(code(artifacts::Error::Unparsable { path: "p".into(), reason: String::new() }), 65);
        assert_eq!(
            code(artifacts::Error::Read { path: "p".into(), source: io::ErrorKind::NotFound.into() }),
            65
        );
        assert_eq!(code(io::Error::from(io::ErrorKind::NotFound)), 65);
    }

    #[test]
    fn a_bad_unit_file_is_78() {
        let malformed =
            |what| pipeline_spec::Error::Malformed { path: "p".into(), what, reason: String::new() };
        assert_eq!(code(malformed("unit file")), 78);
        assert_eq!(code(malformed("artifact record")), 65);
        assert_eq!(code(SpecFault("x".to_owned())), 78);
        assert_eq!(code(pipeline_spec::Error::Field { field: "f".to_owned(), problem: "p".to_owned() }), 78);
    }

    #[test]
    fn signals_time_outs_and_the_rest_have_their_codes() {
        assert_eq!(code(Interrupted { exit_code: INTERRUPTED }), 130);
        assert_eq!(code(Interrupted { exit_code: TERMINATED }), 143);
        assert_eq!(code(io::Error::from(io::ErrorKind::TimedOut)), 75);
        assert_eq!(code(io::Error::from(io::ErrorKind::ConnectionRefused)), 69);
        assert_eq!(code(anyhow::anyhow!("something else")), 1);
    }

    #[test]
    fn a_marked_error_keeps_its_text_and_ends_in_its_code() {
        let busy = ExitWith::new(TRY_AGAIN, io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(busy.to_string(), "connection refused");
        assert_eq!(code(busy), TRY_AGAIN);
    }

    #[test]
    fn a_marked_input_keeps_its_text_and_ends_in_65() {
        let inner = io::Error::other("the picture is cut off");
        let error = anyhow::Error::new(InputFault::new(inner));
        assert_eq!(error.to_string(), "the picture is cut off");
        assert_eq!(code(error), INPUT);
    }
}
