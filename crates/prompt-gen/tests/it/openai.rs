//! The binary against a server that fails on purpose.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipeline_spec::spec::{Endpoint, LanguageModelSpec};
use serde_json::json;

use crate::fault_server::{Act, FaultServer, Request, name_of};
use crate::place::{KEY, KEY_IN_URL, Place, assert_no_key, files, spec, stderr};

/// What can go wrong with a request and is worth another try.
const FAULTS: [Act; 19] = [
    Act::TooManyMs(3),
    Act::Status(500),
    Act::Status(502),
    Act::Status(503),
    Act::Status(408),
    Act::Status(409),
    Act::TooMany(0),
    Act::CutAtOnce,
    Act::CutHeader,
    Act::CutBody,
    Act::CutChunk,
    Act::InvalidJson,
    Act::NoChoices,
    Act::Page,
    Act::ShortLength,
    Act::Huge,
    Act::HugeInChunks,
    Act::Noise,
    Act::TooManyMs(1),
];

/// The ways of a good answer.
const ANSWERS: [Act; 5] =
    [Act::Answer, Act::AnswerInChunks, Act::AnswerSlowly, Act::AnswerAndClose, Act::AnswerWithKey];

/// Up to three faults before each answer, another mixture for each question; now and then the limit of requests hits
/// everyone. No body hangs for ever: a time-out that a busy machine brings about would count as an answer lost.
fn storm(request: &Request) -> Act {
    let digest =
        pipeline_spec::Digest::blake3(format!("{}{}", request.text, request.body["seed"]).as_bytes());
    let hash = usize::from_str_radix(&digest.as_str()[..8], 16).unwrap();
    if request.number % 250 > 240 {
        return Act::TooManyMs(20);
    }
    if hash % 50 == 7 && request.tries == 0 {
        return Act::Stall;
    }
    if request.tries < hash % 4 {
        return FAULTS[(hash / 4 + request.tries * 7) % FAULTS.len()];
    }
    match hash % 97 {
        0 => Act::Refuse,
        1 => Act::SayNothing,
        2 => Act::TellKey,
        _ => ANSWERS[hash / 64 % ANSWERS.len()],
    }
}

#[test]
fn of_a_thousand_requests_in_a_storm_of_faults_none_is_lost_none_doubled_and_the_key_never_shown() {
    let place = Place::new(250);
    let server = FaultServer::start(KEY, storm);
    let unit = place.unit(LanguageModelSpec { answers_per_command: 4, attempts: 6, ..spec() });
    let url = format!("{}?key={KEY_IN_URL}", server.url());
    let output = place.run(&unit, &url, &["--concurrency", "32", "--timeout", "300", "--retries", "40"]);
    let log = stderr(&output, 0);
    let rows = place.rows(&unit);
    // Nothing lost: four different prompts for each class.
    assert_eq!(rows.len(), 1000);
    let ids: HashSet<_> = rows.iter().map(|row| row.answer.clone().unwrap().response_id.unwrap()).collect();
    assert_eq!(ids.len(), 1000);
    // Nothing doubled: no question with its seed was answered twice, and every answer is in the journal.
    let answers = server.answers();
    let twice: Vec<_> = answers.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(answers.values().sum::<usize>(), place.journal().len());
    assert!(place.journal().len() > 1000, "some answers were no prompts and were asked for again");
    // Every fault was met.
    let requests = server.requests();
    let met: HashSet<String> = requests.iter().map(|request| format!("{:?}", storm(request))).collect();
    let expected =
        FAULTS.iter().chain(&ANSWERS).chain(&[Act::Stall, Act::Refuse, Act::SayNothing, Act::TellKey]);
    expected.for_each(|act| assert!(met.contains(&format!("{act:?}")), "{act:?} was not met"));
    // The server had the key, and nobody else.
    assert!(requests.iter().all(|r| r.authorization == Some(format!("Bearer {KEY}"))));
    assert!(requests.iter().all(|r| r.target == format!("/v1/chat/completions?key={KEY_IN_URL}")));
    assert_no_key(log.as_bytes(), "the log");
    assert_no_key(&output.stdout, "stdout");
    assert_no_key(format!("{rows:?}").as_bytes(), "the rows");
    for path in files(place.store().root()) {
        assert_no_key(&std::fs::read(&path).unwrap(), &path.display().to_string());
    }
    assert!(log.contains("requests=") && log.contains("the server is busy"), "{log}");
}

#[test]
fn rows_name_the_command_the_model_and_the_answer() {
    let place = Place::new(2);
    let server = FaultServer::start(KEY, |_| Act::Answer);
    let prefix = Some("a photo of a {}.".to_owned());
    let unit =
        place.unit(LanguageModelSpec { answer_prefix: prefix, endpoint: Endpoint::Completions, ..spec() });
    stderr(&place.run(&unit, &server.url(), &[]), 0);
    let rows = place.rows(&unit);
    assert_eq!(rows.len(), 2);
    for (row, request) in rows.iter().zip([0, 1].map(|class| {
        let text = format!("Describe what an animal {class} looks like");
        server.requests().into_iter().find(|request| request.text == text).unwrap()
    })) {
        let seed = request.body["seed"].as_u64().unwrap();
        let prompt = format!("a photo of a {}. {} seen as number {seed}.", row.class_name, request.text);
        assert_eq!(row.prompt, prompt);
        assert_eq!(
            (row.template.as_str(), row.provider.as_str()),
            ("Describe what a(n) {} looks like", "openai")
        );
        assert_eq!(row.model, "answered-model");
        let answer = row.answer.clone().unwrap();
        assert_eq!((answer.seed, answer.finish_reason.as_deref()), (Some(seed), Some("stop")));
        assert_eq!(answer.response_id, Some(format!("r-{}", request.number)));
        assert_eq!(answer.created, Some(1_700_000_000 + request.number));
        assert_eq!(request.target, "/v1/completions");
        let sent = json!({ "model": "test-model", "prompt": request.text, "max_tokens": 50,
            "temperature": 0.99, "seed": seed, "stop": ["."] });
        assert_eq!(request.body, sent);
    }
}

#[test]
fn a_server_that_does_not_go_on_is_left_after_the_time_out() {
    let place = Place::new(3);
    let server = FaultServer::start(KEY, |request| if request.tries == 0 { Act::Hang } else { Act::Answer });
    let started = Instant::now();
    let unit = place.unit(spec());
    stderr(&place.run(&unit, &server.url(), &["--timeout", "1", "--retries", "20"]), 0);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(place.rows(&unit).len(), 3);
}

#[test]
fn a_wait_that_the_server_asks_for_is_kept() {
    let place = Place::new(6);
    let server =
        FaultServer::start(KEY, |request| if request.number < 2 { Act::TooMany(1) } else { Act::Answer });
    let log = stderr(&place.run(&place.unit(spec()), &server.url(), &["--concurrency", "2"]), 0);
    let times: Vec<Instant> = server.requests().iter().map(|request| request.at).collect();
    for later in &times[2..] {
        let waited = later.duration_since(times[0]);
        assert!(waited >= Duration::from_millis(980), "{waited:?}");
    }
    assert_eq!(times.len(), 8);
    assert!(log.contains("the server is busy"), "{log}");
}

#[test]
fn what_no_repeat_can_help_ends_at_once_and_says_what_to_do() {
    for (act, expected) in [
        (Act::Status(401), "check the key"),
        (Act::Status(404), "check the base URL"),
        (Act::Status(400), "status 400"),
        (Act::NoQuota, "no credit left"),
    ] {
        let place = Place::new(4);
        let server = FaultServer::start(KEY, move |_| act);
        let log = stderr(&place.run(&place.unit(spec()), &server.url(), &["--concurrency", "1"]), 1);
        assert!(log.contains("refuses") && log.contains(expected), "{log}");
        assert_eq!(server.requests().len(), 1, "{act:?}");
        assert_no_key(log.as_bytes(), "the log");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let place = Place::new(1);
    let other = FaultServer::start(KEY, |_| Act::Answer);
    let port = other.port;
    let server = FaultServer::start(KEY, move |_| Act::Redirect(port));
    let log = stderr(&place.run(&place.unit(spec()), &server.url(), &[]), 1);
    assert!(log.contains(&format!("redirects to `http://127.0.0.1:{port}/v1?key=[redacted]`")), "{log}");
    assert!(other.requests().is_empty());
    assert_no_key(log.as_bytes(), "the log");
}

#[test]
fn a_server_that_is_not_there_is_69_and_one_that_keeps_failing_75() {
    let place = Place::new(1);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log =
        stderr(&place.run(&place.unit(spec()), &format!("http://{nobody}/v1"), &["--retries", "2"]), 69);
    assert!(log.contains("cannot be reached"), "{log}");
    let server = FaultServer::start(KEY, |_| Act::Status(500));
    let log = stderr(&place.run(&place.unit(spec()), &server.url(), &["--retries", "2"]), 75);
    assert!(log.contains("gave no answer in 3 requests") && log.contains("status 500"), "{log}");
    assert_eq!(server.requests().len(), 3);
    let server = FaultServer::start(KEY, |_| Act::TooMany(3600));
    let log = stderr(&place.run(&place.unit(spec()), &server.url(), &[]), 75);
    assert!(log.contains("asks to wait 3600 s, more than `--max-wait`"), "{log}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn limits_stop_cleanly_and_the_next_run_goes_on() {
    let place = Place::new(10);
    let server = FaultServer::start(KEY, |_| Act::Answer);
    let unit = place.unit(spec());
    let log = stderr(&place.run(&unit, &server.url(), &["--max-requests", "4"]), 75);
    assert!(log.contains("`--max-requests 4` is reached"), "{log}");
    assert_eq!((server.requests().len(), place.journal().len()), (4, 4));
    assert!(!place.store().contains(&unit.output()));
    // A request is about 33 + at most 50 tokens, which here cost 133 millionths, and in truth 10 + 5.
    let price = ["--price", "1/2", "--concurrency", "1"];
    let log =
        stderr(&place.run(&unit, &server.url(), &[&price[..], &["--max-cost", "0.00015"]].concat()), 75);
    assert!(log.contains("`--max-cost 0.00015` leaves no room"), "{log}");
    assert_eq!(place.journal().len(), 5);
    let log = stderr(&place.run(&unit, &server.url(), &price), 0);
    assert!(log.contains("cost=0.0001") && log.contains("prompt_tokens=50 completion_tokens=25"), "{log}");
    assert_eq!((server.requests().len(), place.rows(&unit).len()), (10, 10));
}

#[test]
fn a_dry_run_says_what_will_be_asked_and_asks_nothing() {
    let place = Place::new(10);
    let server = FaultServer::start(KEY, |_| Act::Answer);
    let unit = place.unit(LanguageModelSpec { answers_per_command: 2, ..spec() });
    let forecast = |more: &[&str]| {
        let output = place.run(&unit, &server.url(), &[&["--dry-run", "--price", "1/2"], more].concat());
        stderr(&output, 0);
        assert_no_key(&output.stdout, "stdout");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["forecast"].clone()
    };
    let before = forecast(&[]);
    let expected = json!({
        "server": format!("http://127.0.0.1:{}", server.port),
        "answers_wanted": 20,
        "answers_there": 0,
        "requests": 20,
        "requests_at_most": 60,
        "estimated_prompt_tokens": 20 * 33,
        "completion_tokens_at_most": 20 * 50,
        "estimated_cost_at_most": 0.00266,
    });
    assert_eq!(before, expected);
    assert!(!place.store().root().exists() && server.requests().is_empty());
    stderr(&place.run(&unit, &server.url(), &["--max-requests", "5"]), 75);
    let after = forecast(&[]);
    assert_eq!((&after["answers_there"], &after["requests"]), (&json!(5), &json!(15)));
}

#[test]
fn unusable_answers_are_asked_for_again_with_another_seed_and_then_reported() {
    let place = Place::new(2);
    // Class 0 is answered at the third attempt, class 1 never.
    let seen = std::sync::Mutex::new(HashMap::<String, usize>::new());
    let server = FaultServer::start(KEY, move |request| {
        let mut seen = seen.lock().unwrap();
        let attempt = seen.entry(request.text.clone()).or_default();
        *attempt += 1;
        match (request.text.contains("animal 0"), *attempt) {
            (_, 1) => Act::Refuse,
            (_, 2) => Act::Filter,
            (true, _) => Act::Answer,
            (false, _) => Act::SayNothing,
        }
    });
    let unit = place.unit(spec());
    let log = stderr(&place.run(&unit, &server.url(), &[]), 1);
    assert!(log.contains("no answer about class `animal 1` could be used in any attempt"), "{log}");
    assert!(log.contains("left out after every attempt, the last being: empty"), "{log}");
    let seeds: HashSet<_> = server.requests().iter().map(|r| name_of(&r.text, &r.body["seed"])).collect();
    assert_eq!((server.requests().len(), seeds.len()), (6, 6));
    // More attempts ask what is new and nothing else.
    let more = place.unit(LanguageModelSpec { attempts: 4, ..spec() });
    stderr(&place.run(&more, &server.url(), &[]), 1);
    assert_eq!(server.requests().len(), 7);
}

#[test]
fn another_command_or_limit_asks_only_what_is_new() {
    let place = Place::new(3);
    let server = FaultServer::start(KEY, |_| Act::Answer);
    let first = place.unit(LanguageModelSpec { answers_per_command: 2, ..spec() });
    stderr(&place.run(&first, &server.url(), &[]), 0);
    assert_eq!(server.requests().len(), 6);
    let commands = vec![spec().commands[0].clone(), "A caption of {}:".to_owned()];
    let unit = place.unit(LanguageModelSpec { commands, answers_per_command: 3, max_words: 50, ..spec() });
    stderr(&place.run(&unit, &server.url(), &[]), 0);
    assert_eq!(server.requests().len(), 3 * 2 * 3);
    let old: HashSet<String> = place.rows(&first).into_iter().map(|row| row.prompt).collect();
    let new: HashSet<String> = place.rows(&unit).into_iter().map(|row| row.prompt).collect();
    assert!(old.is_subset(&new) && new.len() == 18);
}

#[test]
fn two_processes_do_not_ask_the_same_model_at_once() {
    let place = Place::new(2);
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&is_open);
    let server = FaultServer::start(KEY, move |_| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Act::Answer
    });
    let unit = place.unit(spec());
    let first = place.start(&unit, &server.url(), &[]);
    while !place.journal_path().exists() || server.received() == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let log = stderr(&place.run(&unit, &server.url(), &[]), 75);
    assert!(log.contains("another process asks the same model"), "{log}");
    is_open.store(true, Ordering::SeqCst);
    stderr(&first.wait_with_output().unwrap(), 0);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn arguments_that_hold_the_key_are_not_shown_when_they_are_wrong() {
    let place = Place::new(1);
    let unit = place.unit(spec());
    for url in [
        format!("ftp://{KEY_IN_URL}"),
        format!("not a url {KEY}"),
        format!("http://u:{KEY}@host/v1"),
        format!("http://u:{KEY_IN_URL}@/v1"),
    ] {
        let output = place.run(&unit, &url, &[]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_no_key(&output.stderr, "stderr");
    }
    let mut command = place.command(&unit, "http://127.0.0.1:1/v1", &["--help"]);
    assert_no_key(&command.output().unwrap().stdout, "the help");
    let mut command = place.command(&unit, "http://127.0.0.1:1/v1", &[]);
    let output = command.env("OPENAI_API_KEY", format!("{KEY}\nx")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_no_key(&output.stderr, "stderr");
}
