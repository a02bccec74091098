//! SIGINT and SIGTERM: the first asks a stage to stop at the next good moment, the second ends it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Which signal arrived, if any.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Handles SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let (signals, armed) = (Self::default(), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // Runs before the flag is set by the line after it, so only the second signal ends the process.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&signals.received), signal.unsigned_abs() as usize)?;
        }
        Ok(signals)
    }

    /// As after `signal`.
    #[cfg(test)]
    pub fn received(signal: i32) -> Self {
        Self { received: Arc::new(AtomicUsize::new(signal.unsigned_abs() as usize)) }
    }

    /// The exit code that a signal asks for: 130 for SIGINT, 143 for SIGTERM.
    pub fn exit_code(&self) -> Option<u8> {
        match self.received.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sets_the_exit_code_of_its_number() {
        let signals = Signals::install().unwrap();
        assert_eq!(signals.exit_code(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(signals.exit_code(), Some(143));
    }
}
