//! An OpenAI-compatible server on loopback that fails on purpose, and keeps account of what it did.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a request is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// An answer with `Content-Length`.
    Answer,
    /// An answer in chunks.
    AnswerInChunks,
    /// An answer a few bytes at a time.
    AnswerSlowly,
    /// An answer, after which the connection is closed.
    AnswerAndClose,
    /// An answer whose fields beside the text hold the key and the URL.
    AnswerWithKey,
    /// An answer whose text is a refusal.
    Refuse,
    /// An answer without text.
    SayNothing,
    /// An answer whose text holds the key.
    TellKey,
    /// An answer after a while.
    AnswerAfter(Duration),
    /// 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// 429 with `retry-after-ms`.
    TooManyMs(u64),
    /// This status with the key and the URL in the body.
    Status(u16),
    /// 400 of a content filter.
    Filter,
    /// 429 that no wait will help.
    NoQuota,
    /// 307 to this port.
    Redirect(u16),
    /// The connection is closed before a byte is sent.
    CutAtOnce,
    /// The connection is closed in the middle of the header.
    CutHeader,
    /// The connection is closed in the middle of the body.
    CutBody,
    /// The connection is closed in the middle of a chunk.
    CutChunk,
    /// Half of the body, nothing for a moment, and then the end of the connection.
    Stall,
    /// Half of the body, and then nothing.
    Hang,
    /// A body that is no JSON.
    InvalidJson,
    /// JSON without an answer, as text/plain.
    NoChoices,
    /// A page as text/html.
    Page,
    /// A body that is longer than its `Content-Length`.
    ShortLength,
    /// Ten megabytes.
    Huge,
    /// Ten megabytes in chunks.
    HugeInChunks,
    /// Bytes that are no HTTP.
    Noise,
}

impl Act {
    /// Whether the client gets an answer that it can read.
    fn is_answer(self) -> bool {
        matches!(
            self,
            Self::Answer
                | Self::AnswerInChunks
                | Self::AnswerSlowly
                | Self::AnswerAndClose
                | Self::AnswerWithKey
                | Self::Refuse
                | Self::SayNothing
                | Self::TellKey
                | Self::AnswerAfter(_)
        )
    }
}

/// Says how the request for `text` with `seed` is met, the `tries`-th time from 0; `number` counts all requests.
pub type Script = dyn Fn(&Request) -> Act + Send + Sync;

/// One request, as far as a script may want to know.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// The header `authorization`.
    pub authorization: Option<String>,
    /// The question.
    pub text: String,
    /// The body.
    pub body: Value,
    /// How often the same question with the same seed came before.
    pub tries: usize,
    /// How many requests came before.
    pub number: u64,
    /// When it came.
    pub at: Instant,
}

/// The server; it ends with the test's process.
pub struct FaultServer {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    script: Box<Script>,
    key: String,
    requests: Mutex<Vec<Request>>,
    /// Tries and whole answers by question and seed.
    tries: Mutex<HashMap<String, (usize, usize)>>,
    number: AtomicU64,
}

impl FaultServer {
    /// A server that meets requests as `script` says and echoes `key` where it can.
    pub fn start(key: &str, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            script: Box::new(script),
            key: key.to_owned(),
            requests: Mutex::default(),
            tries: Mutex::default(),
            number: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that goes away in the middle is no failure of the server.
                thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many requests came, whether they are met or not.
    pub fn received(&self) -> u64 {
        self.state.number.load(Ordering::SeqCst)
    }

    /// Whole answers by question and seed.
    pub fn answers(&self) -> HashMap<String, usize> {
        let tries = self.state.tries.lock().unwrap();
        tries.iter().map(|(question, (_, answers))| (question.clone(), *answers)).collect()
    }
}

/// A question and its seed, as one name.
pub fn name_of(text: &str, seed: &Value) -> String {
    format!("{text}#{seed}")
}

fn serve(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader, state)? {
        let name = name_of(&request.text, &request.body["seed"]);
        let act = (state.script)(&request);
        state.requests.lock().unwrap().push(request.clone());
        if act.is_answer() {
            // Counted before it is sent: the client may be done before this thread goes on.
            state.tries.lock().unwrap().get_mut(&name).unwrap().1 += 1;
        }
        if !perform(act, stream, &request, state)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>, state: &State) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = match &body["prompt"] {
        Value::String(prompt) => prompt.clone(),
        _ => body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned(),
    };
    let mut tries = state.tries.lock().unwrap();
    let entry = tries.entry(name_of(&text, &body["seed"])).or_default();
    let number = state.number.fetch_add(1, Ordering::SeqCst);
    let request = Request { target, authorization, text, body, tries: entry.0, number, at: Instant::now() };
    entry.0 += 1;
    Ok(Some(request))
}

/// The body of an answer as a server of OpenAI's interface gives it.
fn answer(act: Act, request: &Request, state: &State, echo: &str) -> String {
    let text = match act {
        Act::Refuse => "I'm sorry, but I can't help with that".to_owned(),
        Act::SayNothing => "\n".to_owned(),
        Act::TellKey => format!("The key is {}", state.key),
        _ => format!("{} seen as number {}", request.text, request.body["seed"]),
    };
    let name = if act == Act::AnswerWithKey { echo } else { "answered-model" };
    let id = format!("r-{}{}", request.number, if act == Act::AnswerWithKey { &state.key } else { "" });
    let choice = if request.body["prompt"].is_string() {
        json!({ "index": 0, "text": text, "finish_reason": "stop" })
    } else {
        json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" })
    };
    json!({
        "id": id, "object": "any", "created": 1_700_000_000 + request.number, "model": name, "choices": [choice],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    })
    .to_string()
}

/// Answers with a whole response; whether the connection stays open.
fn perform(act: Act, mut stream: &TcpStream, request: &Request, state: &State) -> std::io::Result<bool> {
    let echo = format!("{} said {} to {}", state.key, state.key, request.target);
    let answer = answer(act, request, state, &echo);
    let json = "application/json";
    let error = |message: &str, code: &str| {
        json!({ "error": { "message": message, "type": "x", "code": code } }).to_string()
    };
    match act {
        Act::Answer | Act::AnswerWithKey | Act::Refuse | Act::SayNothing | Act::TellKey => {
            respond(stream, 200, json, "", &answer)
        }
        Act::AnswerAfter(wait) => {
            thread::sleep(wait);
            respond(stream, 200, json, "", &answer)
        }
        Act::AnswerAndClose => respond(stream, 200, json, "connection: close\r\n", &answer).map(|_| false),
        Act::AnswerInChunks => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for chunk in answer.as_bytes().chunks(17) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n").map(|()| true)
        }
        Act::AnswerSlowly => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
            for piece in answer.as_bytes().chunks(answer.len() / 5) {
                thread::sleep(Duration::from_millis(4));
                stream.write_all(piece)?;
            }
            Ok(true)
        }
        Act::TooMany(seconds) => {
            respond(stream, 429, json, &format!("retry-after: {seconds}\r\n"), &error(&echo, "rate_limit"))
        }
        Act::TooManyMs(ms) => {
            respond(stream, 429, json, &format!("retry-after-ms: {ms}\r\n"), &error(&echo, "rate_limit"))
        }
        Act::Status(status) => respond(stream, status, json, "", &error(&echo, "any")),
        Act::Filter => respond(stream, 400, json, "", &error("filtered", "content_filter")),
        Act::NoQuota => respond(stream, 429, json, "", &error("no credit left", "insufficient_quota")),
        Act::Redirect(port) => {
            let location = format!("location: http://127.0.0.1:{port}/v1?key={}\r\n", state.key);
            respond(stream, 307, "text/html", &location, "moved")
        }
        Act::InvalidJson => respond(stream, 200, json, "", &answer[..answer.len() - 9]),
        Act::NoChoices => respond(stream, 200, "text/plain", "", &json!({ "echo": echo }).to_string()),
        Act::Page => respond(stream, 200, "text/html", "", &format!("<html>{echo}</html>")),
        Act::Huge => respond(stream, 200, json, "", &" ".repeat(10 << 20)).map(|_| false),
        _ => break_off(act, stream, &answer),
    }
}

/// Answers with a response that does not come whole, or with none; whether the connection stays open.
fn break_off(act: Act, mut stream: &TcpStream, answer: &str) -> std::io::Result<bool> {
    match act {
        Act::CutAtOnce => Ok(false),
        Act::CutHeader => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").map(|()| false),
        Act::CutBody => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
            stream.write_all(&answer.as_bytes()[..answer.len() / 2]).map(|()| false)
        }
        Act::CutChunk => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{\"choices\"")?;
            Ok(false)
        }
        Act::Stall | Act::Hang => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
            stream.write_all(&answer.as_bytes()[..answer.len() / 2])?;
            if act == Act::Stall {
                thread::sleep(Duration::from_millis(200));
            } else {
                // Until the client has had enough.
                let _ = stream.read(&mut [0; 16]);
            }
            Ok(false)
        }
        Act::ShortLength => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len() - 7)?;
            stream.write_all(answer.as_bytes()).map(|()| false)
        }
        Act::HugeInChunks => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for _ in 0..160 {
                write!(stream, "10000\r\n{}\r\n", " ".repeat(1 << 16))?;
            }
            Ok(false)
        }
        Act::Noise => stream.write_all(b"\x16\x03\x01 no http at all\r\n\r\n").map(|()| false),
        _ => panic!("{act:?} is no way to break off"),
    }
}

fn respond(
    mut stream: &TcpStream,
    status: u16,
    content_type: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<bool> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Any\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).map(|()| true)
}
