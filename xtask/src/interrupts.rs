//! Ctrl-C and termination, noticed without stopping at once.

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The signals received since [`Interrupts::listen`].
#[derive(Clone)]
pub struct Interrupts {
    first: Arc<AtomicI32>,
    count: Arc<AtomicUsize>,
}

impl Interrupts {
    /// Takes over SIGINT, SIGTERM and SIGHUP from now on.
    pub fn listen() -> anyhow::Result<Self> {
        let interrupts = Self { first: Arc::default(), count: Arc::default() };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen to signals")?;
        let received = interrupts.clone();
        std::thread::spawn(move || {
            for signal in &mut signals {
                let _ = received.first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                received.count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(interrupts)
    }

    /// The first signal received, if any.
    pub fn signal(&self) -> Option<i32> {
        Some(self.first.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// How many signals were received.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}
