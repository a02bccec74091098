//! What requests cost: limits before they are sent, and the account after.

use super::answer::Answer;
use super::question::Question;
use super::server::{Price, ServerArgs};

/// Tokens of a question beside its text: the system message and the marks of a chat template.
const OVERHEAD_TOKENS: u64 = 24;

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tokens {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
}

impl Tokens {
    /// About what a question has, at four characters a token, and the most that its answer has.
    pub(crate) fn estimate(question: &Question, system: Option<&str>, max_tokens: u32) -> Self {
        let characters = question.text.chars().count() + system.map_or(0, |text| text.chars().count());
        Self { prompt: characters as u64 / 4 + OVERHEAD_TOKENS, completion: u64::from(max_tokens) }
    }

    /// What the server says, or else the estimate.
    fn of(answer: &Answer, estimate: Self) -> Self {
        Self {
            prompt: answer.prompt_tokens.unwrap_or(estimate.prompt),
            completion: answer.completion_tokens.unwrap_or(estimate.completion),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
    }
}

/// The requests of this run.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    max_requests: u64,
    price: Option<Price>,
    max_cost: f64,
    /// Requests that were sent.
    pub(crate) requests: u64,
    /// Requests that failed and were repeated or given up.
    pub(crate) failures: u64,
    /// Answers without a count of tokens, which are estimated.
    pub(crate) uncounted: u64,
    /// Tokens of what is paid for, or may be.
    pub(crate) tokens: Tokens,
    /// Tokens at most of what is under way.
    reserved: Tokens,
}

impl Budget {
    pub(crate) fn new(args: &ServerArgs) -> Self {
        Self {
            max_requests: args.max_requests.unwrap_or(u64::MAX),
            price: args.price,
            max_cost: args.max_cost.unwrap_or(f64::INFINITY),
            requests: 0,
            failures: 0,
            uncounted: 0,
            tokens: Tokens::default(),
            reserved: Tokens::default(),
        }
    }

    /// Sets aside what one more request costs at most; the error names the limit that it would break.
    pub(crate) fn reserve(&mut self, estimate: Tokens) -> Result<(), String> {
        if self.requests >= self.max_requests {
            return Err(format!("`--max-requests {}` is reached", self.max_requests));
        }
        let mut all = self.tokens;
        all.add(self.reserved);
        all.add(estimate);
        if self.price.is_some_and(|price| price.of(all.prompt, all.completion) > self.max_cost) {
            return Err(format!("`--max-cost {}` leaves no room for another request", self.max_cost));
        }
        self.requests += 1;
        self.reserved.add(estimate);
        Ok(())
    }

    /// A request ended: with an answer, or without and maybe billed.
    pub(crate) fn settle(&mut self, estimate: Tokens, answer: Option<&Answer>, may_be_billed: bool) {
        self.reserved.prompt -= estimate.prompt;
        self.reserved.completion -= estimate.completion;
        match answer {
            Some(answer) => {
                self.uncounted += u64::from(answer.completion_tokens.is_none());
                self.tokens.add(Tokens::of(answer, estimate));
            }
            None => {
                self.failures += 1;
                if may_be_billed {
                    self.tokens.add(estimate);
                }
            }
        }
    }

    /// What this run cost, if a price is known.
    pub(crate) fn cost(&self) -> Option<f64> {
        self.price.map(|price| price.of(self.tokens.prompt, self.tokens.completion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::server::tests::args;

    const ESTIMATE: Tokens = Tokens { prompt: 100, completion: 50 };

    #[test]
    fn a_cost_limit_holds_whatever_the_answers_turn_out_to_be() {
        // 100 tokens at 10 and 50 at 20 a million: 0.002 a request
        let args = args(&["--price", "10/20", "--max-cost", "0.005"]).unwrap();
        let mut budget = Budget::new(&args);
        budget.reserve(ESTIMATE).unwrap();
        budget.reserve(ESTIMATE).unwrap();
        assert!(budget.reserve(ESTIMATE).unwrap_err().contains("--max-cost 0.005"));
        let mut short = Answer::filtered("m");
        (short.prompt_tokens, short.completion_tokens) = (Some(10), Some(5));
        budget.settle(ESTIMATE, Some(&short), true);
        budget.reserve(ESTIMATE).unwrap();
        budget.settle(ESTIMATE, None, true);
        budget.settle(ESTIMATE, None, false);
        assert_eq!(budget.tokens, Tokens { prompt: 110, completion: 55 });
        assert_eq!((budget.requests, budget.failures, budget.uncounted), (3, 2, 0));
        assert!((budget.cost().unwrap() - 0.0022).abs() < 1e-12);
    }

    #[test]
    fn a_limit_of_requests_counts_repeats() {
        let mut budget = Budget::new(&args(&["--max-requests", "2"]).unwrap());
        budget.reserve(ESTIMATE).unwrap();
        budget.settle(ESTIMATE, None, false);
        budget.reserve(ESTIMATE).unwrap();
        assert!(budget.reserve(ESTIMATE).unwrap_err().contains("--max-requests 2"));
        assert_eq!(budget.cost(), None);
    }
}
