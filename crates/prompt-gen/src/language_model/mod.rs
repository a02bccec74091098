//! Prompts from a language model behind an OpenAI-compatible server.
//!
//! Every answer that is wanted is a slot; a slot is asked up to `attempts` times, until its answer makes a prompt. The
//! state of a slot follows from the journal alone, so that a run goes on where another was stopped, and the artifact
//! depends on the answers and not on their order.

mod answer;
mod budget;
mod client;
mod dispatcher;
mod journal;
mod question;
mod secrets;
mod server;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use artifacts::{ModelAnswer, PromptRow};
use pipeline_spec::spec::LanguageModelSpec;
use serde_json::{Value, json};

pub use secrets::ApiKey;
pub use server::{Price, ServerArgs};

use crate::class_prompts::{ClassPrompts, Origin};
use crate::{Error, Watch};
use answer::{Answer, Unusable};
use budget::Tokens;
use client::Client;
pub(crate) use client::Remedy;
use dispatcher::Dispatcher;
pub(crate) use dispatcher::NoAnswer;
use journal::Journal;
use question::{Question, Slot};

/// How long answers under way are waited for after a signal.
const GRACE: Duration = Duration::from_millis(1500);

/// Everything that is asked about the classes of a data set.
struct Questionnaire<'a> {
    spec: &'a LanguageModelSpec,
    class_names: &'a [String],
    slots: Vec<Slot>,
}

/// Where a slot stands.
enum State<'j> {
    /// This is asked next.
    Open(Question),
    /// There is a prompt.
    Filled { prompt: String, seed: Option<u64>, answer: &'j Answer },
    /// No answer could be used; this was wrong with the last one.
    GivenUp(Unusable),
}

impl<'a> Questionnaire<'a> {
    fn new(spec: &'a LanguageModelSpec, class_names: &'a [String]) -> Self {
        Self { spec, class_names, slots: question::slots(spec, class_names.len()) }
    }

    fn class_name(&self, slot: Slot) -> &'a str {
        &self.class_names[slot.class_id as usize]
    }

    fn state<'j>(&self, index: usize, journal: &'j Journal) -> State<'j> {
        let slot = self.slots[index];
        let mut unusable = Unusable::Empty;
        for attempt in 0..self.spec.attempts {
            let question = Question::new(self.spec, self.class_name(slot), slot, index, attempt);
            let Some(answer) = journal.get(&question.digest) else { return State::Open(question) };
            match answer.prompt(self.spec, self.class_name(slot)) {
                Ok(prompt) => return State::Filled { prompt, seed: question.seed, answer },
                Err(found) => unusable = found,
            }
        }
        State::GivenUp(unusable)
    }

    fn open_questions(&self, journal: &Journal) -> VecDeque<Question> {
        let states = (0..self.slots.len()).map(|index| self.state(index, journal));
        states
            .filter_map(|state| if let State::Open(question) = state { Some(question) } else { None })
            .collect()
    }
}

/// Asks what the journal does not know yet, and makes the rows of all answers.
pub(crate) fn prompts(
    spec: &LanguageModelSpec,
    class_names: &[String],
    journal: &Path,
    args: &ServerArgs,
    watch: &Watch<'_>,
) -> Result<Vec<PromptRow>, Error> {
    let questionnaire = Questionnaire::new(spec, class_names);
    // A bad URL or key is found before anything is written.
    let client = Client::new(args, spec)?;
    let mut journal = Journal::open(journal)?;
    let open = questionnaire.open_questions(&journal);
    if !open.is_empty() {
        let dispatcher = Dispatcher::new(client, args, spec.system.clone(), spec.max_tokens);
        ask(&questionnaire, &mut journal, open, dispatcher, args.concurrency, watch)?;
    }
    rows(&questionnaire, &journal)
}

/// Asks until no slot is open; every answer is in the journal before the next step.
fn ask(
    questionnaire: &Questionnaire<'_>,
    journal: &mut Journal,
    mut open: VecDeque<Question>,
    mut dispatcher: Dispatcher,
    concurrency: u32,
    watch: &Watch<'_>,
) -> Result<(), Error> {
    let total = questionnaire.slots.len() as u64;
    let progress = (watch.progress)(total);
    progress.inc(total - open.len() as u64);
    let server = dispatcher.server().to_owned();
    tracing::info!(server, model = questionnaire.spec.model, wanted = total, open = open.len(), "asking");
    let mut ending: Option<Error> = None;
    let mut deadline: Option<Instant> = None;
    loop {
        while ending.is_none() && dispatcher.in_flight < concurrency {
            let Some(question) = open.pop_front() else { break };
            dispatcher.send(question);
        }
        if dispatcher.in_flight == 0 || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            break;
        }
        if let Some((question, reply)) = dispatcher.receive() {
            match reply {
                Ok(answer) => {
                    journal.append(&question, answer)?;
                    match questionnaire.state(question.slot, journal) {
                        State::Open(next) => open.push_back(next),
                        State::Filled { .. } | State::GivenUp(_) => progress.inc(1),
                    }
                }
                Err(NoAnswer::Stopped) => {}
                Err(reason) => {
                    dispatcher.stop();
                    ending.get_or_insert_with(|| Error::no_answer(&server, reason));
                }
            }
        }
        if deadline.is_none()
            && let Err(interrupted) = (watch.check_interrupted)()
        {
            dispatcher.stop();
            deadline = Some(Instant::now() + GRACE);
            ending = Some(interrupted.into());
        }
    }
    let account = dispatcher.account();
    tracing::info!(
        requests = account.requests,
        failures = account.failures,
        prompt_tokens = account.tokens.prompt,
        completion_tokens = account.tokens.completion,
        estimated_answers = account.uncounted,
        cost = account.cost(),
        "asked"
    );
    ending.map_or(Ok(()), Err)
}

/// The prompts of all slots that have one.
fn rows(questionnaire: &Questionnaire<'_>, journal: &Journal) -> Result<Vec<PromptRow>, Error> {
    let mut classes: Vec<ClassPrompts<'_>> =
        (0_u32..).zip(questionnaire.class_names).map(|(id, name)| ClassPrompts::new(id, name)).collect();
    let mut given_up: BTreeMap<Unusable, usize> = BTreeMap::new();
    for (index, slot) in questionnaire.slots.iter().enumerate() {
        match questionnaire.state(index, journal) {
            State::Filled { prompt, seed, answer } => {
                let origin = Origin {
                    template: &questionnaire.spec.commands[slot.command],
                    provider: "openai",
                    model: &answer.model,
                    answer: Some(ModelAnswer {
                        seed,
                        finish_reason: answer.finish_reason.clone(),
                        response_id: answer.response_id.clone(),
                        created: answer.created,
                    }),
                };
                classes[slot.class_id as usize].push(prompt, origin);
            }
            State::GivenUp(reason) => *given_up.entry(reason).or_default() += 1,
            State::Open(question) => return Err(Error::Unanswered { question: question.text }),
        }
    }
    for (reason, answers) in &given_up {
        let attempts = questionnaire.spec.attempts;
        tracing::warn!(answers, attempts, "left out after every attempt, the last being: {reason}");
    }
    let mut rows = Vec::new();
    let mut without = Vec::new();
    for (class, name) in classes.into_iter().zip(questionnaire.class_names) {
        let prompts = class.into_rows();
        if prompts.is_empty() {
            without.push(name.clone());
        }
        rows.extend(prompts);
    }
    if without.is_empty() { Ok(rows) } else { Err(Error::NoPrompts { classes: without }) }
}

/// What a run would ask, for `--dry-run`.
pub(crate) fn forecast(
    spec: &LanguageModelSpec,
    class_names: &[String],
    journal: &Path,
    args: &ServerArgs,
) -> Result<Value, Error> {
    let questionnaire = Questionnaire::new(spec, class_names);
    let address = server::Address::new(args, spec)?;
    let open = questionnaire.open_questions(&Journal::read(journal)?);
    let mut tokens = Tokens::default();
    for question in &open {
        tokens.add(Tokens::estimate(question, spec.system.as_deref(), spec.max_tokens));
    }
    Ok(json!({
        "server": address.shown,
        "answers_wanted": questionnaire.slots.len(),
        "answers_there": questionnaire.slots.len() - open.len(),
        "requests": open.len(),
        "requests_at_most": questionnaire.slots.len() as u64 * u64::from(spec.attempts),
        "estimated_prompt_tokens": tokens.prompt,
        "completion_tokens_at_most": tokens.completion,
        "estimated_cost_at_most": args.price.map(|price| price.of(tokens.prompt, tokens.completion)),
    }))
}
