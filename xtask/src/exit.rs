//! Exit codes, the same as those of the stages (see `docs/stages.md`).

use pipeline_spec::Error;
use std::io::ErrorKind;
use std::process::ExitStatus;

use crate::cluster::slurm::Unavailable;
use crate::fetch::BadSource;

/// Something failed.
pub const FAILED: u8 = 1;
/// An input is missing or damaged.
pub const BAD_INPUT: u8 = 65;
/// A scheduler cannot be asked.
pub const UNAVAILABLE: u8 = 69;
/// An output cannot be created.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed, for example on a full disk.
pub const IO: u8 = 74;
/// A pipeline, plan or unit file is not valid.
pub const BAD_SPEC: u8 = 78;

/// The exit code that fits `error`.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        match cause.downcast_ref::<Error>() {
            Some(
                Error::Malformed { .. } | Error::InvalidId { .. } | Error::Input { .. } | Error::Field { .. },
            ) => {
                return BAD_SPEC;
            }
            Some(Error::Corrupt { .. } | Error::MissingArtifact { .. }) => return BAD_INPUT,
            Some(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return BAD_INPUT,
            _ => {}
        }
        if cause.is::<Unavailable>() {
            return UNAVAILABLE;
        }
        if cause.is::<BadSource>() {
            return BAD_INPUT;
        }
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        match io {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero) => return IO,
            Some(ErrorKind::ReadOnlyFilesystem) => return CANNOT_CREATE,
            _ => {}
        }
    }
    FAILED
}

/// The exit code of a process that ended, 128 + signal if a signal ended it.
pub fn code_of_status(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// The exit code after the signal `signal`.
pub fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_read_only_has_the_code_of_the_stages() {
        let code = |kind: ErrorKind| {
            code_of(&anyhow::Error::new(std::io::Error::from(kind)).context("cannot create `logs`"))
        };
        assert_eq!(code(ErrorKind::StorageFull), IO);
        assert_eq!(code(ErrorKind::ReadOnlyFilesystem), CANNOT_CREATE);
        assert_eq!(code(ErrorKind::Other), FAILED);
    }
}
