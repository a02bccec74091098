//! Logs on stderr.

use std::io::{self, IsTerminal as _};

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
