//! Sends questions side by side, and each again until it is answered or hopeless.
//!
//! How long is waited, and in which order answers come, has no influence on what is asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::budget::{Budget, Tokens};
use super::client::{Client, Failure, Remedy};
use super::question::Question;
use super::server::ServerArgs;

/// Longest sleep between two looks at whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The last failure of so many requests.
    Failed { failure: Failure, requests: u32 },
    /// The server asks for a longer wait than is allowed.
    LongWait { failure: Failure, wait: Duration },
    /// A limit of the run.
    Limit(String),
    /// The run was stopped before the question was sent.
    Stopped,
    /// The HTTP client panicked.
    Panicked,
}

/// A question and what became of it.
pub(crate) type Reply = (Question, Result<Answer, NoAnswer>);

/// Sends each question on a thread of its own.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    replies: Receiver<Reply>,
    reply_to: Sender<Reply>,
    /// Questions without a reply yet.
    pub(crate) in_flight: u32,
}

/// What the threads have in common.
struct Shared {
    client: Client,
    budget: Mutex<Budget>,
    /// Nothing is sent before this moment.
    closed_until: Mutex<Instant>,
    stop: AtomicBool,
    retries: u32,
    backoff: Duration,
    max_wait: Duration,
    system: Option<String>,
    max_tokens: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dispatcher {
    pub(crate) fn new(client: Client, args: &ServerArgs, system: Option<String>, max_tokens: u32) -> Self {
        let (reply_to, replies) = channel();
        let shared = Shared {
            client,
            budget: Mutex::new(Budget::new(args)),
            closed_until: Mutex::new(Instant::now()),
            stop: AtomicBool::new(false),
            retries: args.retries,
            backoff: args.backoff,
            max_wait: args.max_wait,
            system,
            max_tokens,
        };
        Self { shared: Arc::new(shared), replies, reply_to, in_flight: 0 }
    }

    /// Sends a question.
    pub(crate) fn send(&mut self, question: Question) {
        self.in_flight += 1;
        let (shared, reply_to) = (Arc::clone(&self.shared), self.reply_to.clone());
        thread::spawn(move || {
            // Without a reply the run would wait for ever.
            let answer = catch_unwind(AssertUnwindSafe(|| shared.ask(&question)));
            let answer = answer.unwrap_or(Err(NoAnswer::Panicked));
            // The receiver is gone if the run ended without waiting.
            let _ = reply_to.send((question, answer));
        });
    }

    /// The next reply, if there is one soon.
    pub(crate) fn receive(&mut self) -> Option<Reply> {
        match self.replies.recv_timeout(TICK) {
            Ok(reply) => {
                self.in_flight -= 1;
                Some(reply)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Sends nothing more; requests under way are waited for.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// What this run has sent and what it cost.
    pub(crate) fn account(&self) -> Budget {
        locked(&self.shared.budget).clone()
    }

    /// Scheme, host and port of the server.
    pub(crate) fn server(&self) -> &str {
        self.shared.client.shown()
    }
}

impl Shared {
    fn ask(&self, question: &Question) -> Result<Answer, NoAnswer> {
        let estimate = Tokens::estimate(question, self.system.as_deref(), self.max_tokens);
        let mut requests = 0;
        loop {
            self.wait_until_open()?;
            locked(&self.budget).reserve(estimate).map_err(NoAnswer::Limit)?;
            requests += 1;
            let failure = match self.client.ask(question) {
                Ok(answer) => {
                    locked(&self.budget).settle(estimate, Some(&answer), true);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            locked(&self.budget).settle(estimate, None, failure.may_be_billed);
            if failure.remedy == Remedy::GiveUp || requests > self.retries {
                return Err(NoAnswer::Failed { failure, requests });
            }
            tracing::debug!(problem = failure.problem, requests, "asking again");
            let own = jittered(self.backoff * 2_u32.pow((requests - 1).min(6)));
            match failure.remedy {
                Remedy::Wait(Some(wait)) if wait > self.max_wait => {
                    return Err(NoAnswer::LongWait { failure, wait });
                }
                Remedy::Wait(wait) => {
                    // The limit is that of the key, so that it holds for every question.
                    self.close(wait.map_or(own, |wait| wait + jittered(self.backoff) / 4), &failure.problem);
                }
                _ => self.sleep_until(Instant::now() + own)?,
            }
        }
    }

    /// Lets nothing be sent for `wait`.
    fn close(&self, wait: Duration, problem: &str) {
        let now = Instant::now();
        let mut closed_until = locked(&self.closed_until);
        if *closed_until <= now {
            tracing::warn!(problem, wait_s = wait.as_secs_f32(), "the server is busy");
        }
        *closed_until = (*closed_until).max(now + wait);
    }

    fn wait_until_open(&self) -> Result<(), NoAnswer> {
        loop {
            let until = *locked(&self.closed_until);
            self.sleep_until(until)?;
            if *locked(&self.closed_until) <= until {
                return Ok(());
            }
        }
    }

    fn sleep_until(&self, until: Instant) -> Result<(), NoAnswer> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(NoAnswer::Stopped);
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(TICK)),
                _ => return Ok(()),
            }
        }
    }
}

/// Between half of `wait` and all of it, so that requests which failed together do not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::question::tests::spec;
    use crate::language_model::server::tests::args;

    #[test]
    fn a_wait_holds_for_every_question_and_a_shorter_one_does_not_end_it() {
        let args = args(&[]).unwrap();
        let client = Client::new(&args, &spec()).unwrap();
        let dispatcher = Dispatcher::new(client, &args, None, 50);
        let started = Instant::now();
        dispatcher.shared.close(Duration::from_millis(120), "busy");
        dispatcher.shared.close(Duration::from_millis(10), "busy");
        dispatcher.shared.wait_until_open().unwrap();
        assert!(started.elapsed() >= Duration::from_millis(120));
        dispatcher.shared.close(Duration::from_secs(3600), "busy");
        dispatcher.stop();
        assert!(matches!(dispatcher.shared.wait_until_open(), Err(NoAnswer::Stopped)));
    }

    #[test]
    fn jitter_keeps_between_half_a_wait_and_all_of_it() {
        let wait = Duration::from_secs(8);
        let waits: Vec<Duration> = (0..100).map(|_| jittered(wait)).collect();
        assert!(waits.iter().all(|w| (wait / 2..=wait).contains(w)), "{waits:?}");
        assert!(waits.iter().any(|w| *w != waits[0]));
    }
}
