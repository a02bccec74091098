//! One request to an OpenAI-compatible server.

use std::error::Error as _;
use std::io;
use std::time::{Duration, SystemTime};

use pipeline_spec::spec::LanguageModelSpec;
use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::answer::{Answer, excerpt};
use super::question::Question;
use super::server::{Address, ServerArgs};
use crate::Error;

/// Largest body of an answer, in bytes.
const MAX_BODY: u64 = 1 << 20;
/// Time for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(15);

/// Asks one model at one server.
pub(crate) struct Client {
    agent: Agent,
    address: Address,
    authorization: Option<HeaderValue>,
    spec: LanguageModelSpec,
    limit_field: &'static str,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened, without secrets.
    pub(crate) problem: String,
    /// What to do about it.
    pub(crate) remedy: Remedy,
    /// Whether the server may have made an answer, and may ask money for it.
    pub(crate) may_be_billed: bool,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask again, after a wait.
    Retry,
    /// Ask again, and ask nothing before this time has passed.
    Wait(Option<Duration>),
    /// Ask again; if that does not help, the server is not there.
    Reconnect,
    /// None: the same request would fail again.
    GiveUp,
}

impl Client {
    /// A client for `spec` at the server of `args`.
    pub(crate) fn new(args: &ServerArgs, spec: &LanguageModelSpec) -> Result<Self, Error> {
        let address = Address::new(args, spec)?;
        let authorization = match args.api_key.as_ref().filter(|key| !key.reveal().is_empty()) {
            None => None,
            Some(key) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {}", key.reveal())).map_err(|_| Error::ApiKey)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect could send the key to another host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(args.timeout))
            .timeout_connect(Some(CONNECT.min(args.timeout)))
            .max_idle_connections_per_host(args.concurrency as usize)
            .max_idle_connections(args.concurrency as usize)
            .user_agent(concat!("prompt-gen/", env!("CARGO_PKG_VERSION")))
            .build();
        let limit_field = if args.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        Ok(Self { agent: config.into(), address, authorization, spec: spec.clone(), limit_field })
    }

    /// Scheme, host and port of the server.
    pub(crate) fn shown(&self) -> &str {
        &self.address.shown
    }

    /// The answer to `question`.
    pub(crate) fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let body = question.body(&self.spec, self.limit_field).to_string();
        let mut request = self.agent.post(&self.address.url).header(CONTENT_TYPE, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let mut response = request.send(&body).map_err(|e| self.no_response(&e))?;
        let status = response.status();
        let body = self.read(&mut response)?;
        if status.is_success() {
            return Answer::parse(&body, &self.spec.model, &self.address.secrets)
                .map_err(|problem| Failure { problem, remedy: Remedy::Retry, may_be_billed: true });
        }
        self.refused(status, response.headers(), &body)
    }

    /// The body, if it is not too large.
    fn read(&self, response: &mut Response<Body>) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure {
            problem: format!("expected an answer of at most {MAX_BODY} bytes, found a larger one"),
            remedy: Remedy::Retry,
            may_be_billed: true,
        };
        if response.body().content_length().is_some_and(|length| length > MAX_BODY) {
            return Err(too_large());
        }
        response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => too_large(),
            error => self.no_response(&error),
        })
    }

    /// A failure without a status: the connection, the time, the protocol.
    fn no_response(&self, error: &ureq::Error) -> Failure {
        use io::ErrorKind as K;
        let unreachable = match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            ureq::Error::Io(e) => {
                matches!(e.kind(), K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable)
            }
            ureq::Error::Timeout(t) => matches!(t, ureq::Timeout::Connect | ureq::Timeout::Resolve),
            _ => false,
        };
        let hopeless = matches!(
            error,
            ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::InvalidProxyUrl
                | ureq::Error::ConnectProxyFailed(_)
                | ureq::Error::Tls(_)
                | ureq::Error::Rustls(_)
        );
        let mut problem = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            problem = format!("{problem}: {inner}");
            cause = inner.source();
        }
        let remedy = match (hopeless, unreachable) {
            (true, _) => Remedy::GiveUp,
            (_, true) => Remedy::Reconnect,
            _ => Remedy::Retry,
        };
        let problem = self.address.secrets.redact(&problem);
        Failure { problem, remedy, may_be_billed: !hopeless && !unreachable }
    }

    /// A response whose status is no success.
    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Failure> {
        let error = serde_json::from_slice::<ErrorReply>(body).ok().and_then(|reply| reply.error);
        let code = error.as_ref().and_then(|e| e.code.as_ref()?.as_str()).unwrap_or_default();
        if status == StatusCode::BAD_REQUEST && code == "content_filter" {
            return Ok(Answer::filtered(&self.spec.model));
        }
        let secrets = &self.address.secrets;
        let message = match error.as_ref().and_then(|e| e.message.as_deref()) {
            Some(message) => excerpt(message.as_bytes(), secrets),
            None => excerpt(body, secrets),
        };
        let remedy = match status.as_u16() {
            429 if code == "insufficient_quota" => Remedy::GiveUp,
            429 => Remedy::Wait(retry_after(headers)),
            408 | 409 | 425 | 500.. => match retry_after(headers) {
                None => Remedy::Retry,
                after => Remedy::Wait(after),
            },
            _ => Remedy::GiveUp,
        };
        let hint = match status.as_u16() {
            300..=399 => {
                let target = headers.get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or("nowhere");
                format!("; it redirects to `{}`: give that server as the base URL", secrets.redact(target))
            }
            401 | 403 => "; check the key (`OPENAI_API_KEY`)".to_owned(),
            404 => "; check the base URL (it ends in `/v1` for most servers) and the model".to_owned(),
            _ => String::new(),
        };
        let problem = format!("status {}: `{message}`{hint}", status.as_u16());
        Err(Failure { problem, remedy, may_be_billed: false })
    }
}

/// How long the server asks to wait: seconds, milliseconds (as OpenAI has it) or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let number = |text: &str, unit: f64| {
        let seconds = text.parse::<f64>().ok().filter(|v| *v >= 0.0)? / unit;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    };
    if let Some(wait) = text("retry-after-ms").and_then(|ms| number(ms, 1e3)) {
        return Some(wait);
    }
    let text = text("retry-after")?;
    number(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

#[derive(Deserialize)]
struct ErrorReply {
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    message: Option<String>,
    code: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(name: &'static str, value: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(
            ureq::http::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )]))
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        assert_eq!(wait("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(wait("retry-after", "0.25"), Some(Duration::from_millis(250)));
        assert_eq!(wait("retry-after-ms", "40"), Some(Duration::from_millis(40)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        let until = wait("retry-after", &date).unwrap();
        assert!((28..=30).contains(&until.as_secs()), "{until:?}");
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        for bad in ["soon", "-1", "NaN", ""] {
            assert_eq!(wait("retry-after", bad), None, "{bad}");
        }
        assert_eq!(wait("retry-after", "1e300"), Some(Duration::MAX));
    }
}
