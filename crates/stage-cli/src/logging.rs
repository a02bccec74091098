//! Logs on stderr.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::LogFormat;
use crate::progress::Display;

/// Sends logs to stderr: `verbose` 0 shows info, 1 debug, more trace; `RUST_LOG` overrides it. Colour only on a terminal
/// and unless `NO_COLOR` is set. A second call changes nothing.
pub fn init(format: LogFormat, verbose: u8, display: &Display) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let display = display.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_writer(move || display.writer());
    // An error means that a subscriber is set already, as in tests that call two stages.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colour).without_time().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Appends to the file `path` from now on whatever this process writes to stderr: logs, panics and what libraries print.
///
/// # Errors
///
/// Fails if the file cannot be opened for writing.
#[allow(unsafe_code)]
pub fn redirect(path: &Path) -> Result<(), artifacts::Error> {
    let open = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::options().append(true).create(true).open(path)?;
        // SAFETY: `file` is open; descriptor 2 is never closed and belongs to no object that expects another file there.
        match unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    open().map_err(|source| artifacts::Error::Write { path: path.to_owned(), free_bytes: None, source })
}
