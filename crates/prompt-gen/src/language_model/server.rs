//! Where the language model is and how it is asked: arguments, never hashed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use pipeline_spec::spec::{Endpoint, LanguageModelSpec};
use ureq::http::Uri;

use super::secrets::{ApiKey, Secrets};
use crate::Error;

/// Arguments of the provider `openai`. Not `Debug`: the URL may hold a key.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Language model")]
pub struct ServerArgs {
    /// Base URL of an OpenAI-compatible server, up to and with `/v1`.
    #[arg(
        long,
        value_name = "URL",
        env = "OPENAI_BASE_URL",
        hide_env_values = true,
        default_value = "https://api.openai.com/v1"
    )]
    pub base_url: String,
    /// Key of the server, if it wants one. The variable is the better place: others see arguments.
    #[arg(long, value_name = "KEY", env = "OPENAI_API_KEY", hide_env_values = true)]
    pub api_key: Option<ApiKey>,
    /// Requests under way at the same time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// Times that a failed request is repeated.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub retries: u32,
    /// Wait before the first repeat; each further one waits twice as long, up to 64 times.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub backoff: Duration,
    /// Longest wait that a server may ask for; the run stops if it asks for more.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub max_wait: Duration,
    /// Time for one request, from the connection to the end of the answer.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub timeout: Duration,
    /// Stop before the requests of this run, repeats included, are more.
    #[arg(long, value_name = "N")]
    pub max_requests: Option<u64>,
    /// Price of a million tokens of questions and of answers, in any currency.
    #[arg(long, value_name = "IN/OUT")]
    pub price: Option<Price>,
    /// Stop before this run costs more.
    #[arg(long, value_name = "AMOUNT", requires = "price", value_parser = amount)]
    pub max_cost: Option<f64>,
    /// Send the limit of tokens as `max_completion_tokens`, as some models of OpenAI want it.
    #[arg(long)]
    pub max_completion_tokens: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    let most = 86_400.0;
    if seconds > 0.0 && seconds <= most {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("expected more than 0 and at most {most} seconds"))
    }
}

fn amount(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0);
    valid.ok_or_else(|| "expected an amount of 0 or more".to_owned())
}

/// Price of a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of a question.
    pub input: f64,
    /// Of an answer.
    pub output: f64,
}

impl Price {
    /// What so many tokens cost.
    pub(crate) fn of(self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        (self.input * prompt_tokens as f64 + self.output * completion_tokens as f64) / 1e6
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (input, output) = text.split_once('/').ok_or("expected `IN/OUT`, for example `0.15/0.6`")?;
        Ok(Self { input: amount(input)?, output: amount(output)? })
    }
}

/// The URL of an endpoint, and what of it may be shown.
#[derive(Clone)]
pub(crate) struct Address {
    /// With everything that the base URL has.
    pub(crate) url: String,
    /// Scheme, host and port.
    pub(crate) shown: String,
    /// What may be secret in it, and the key.
    pub(crate) secrets: Secrets,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// The address of the endpoint of `spec` below the base URL of `args`. A query (`?api-version=...`) is kept.
    pub(crate) fn new(args: &ServerArgs, spec: &LanguageModelSpec) -> Result<Self, Error> {
        // The URL may hold a key, so that the error must not show it.
        let invalid = |expected: &'static str| Error::BaseUrl { expected };
        let uri: Uri = args.base_url.trim().parse().map_err(|_| invalid("a URL"))?;
        let scheme = uri.scheme_str().filter(|s| ["http", "https"].contains(s));
        let scheme = scheme.ok_or_else(|| invalid("`http://` or `https://`"))?;
        let authority = uri.authority().ok_or_else(|| invalid("a host"))?;
        let (user, host) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        let port = authority.port().map(|p| format!(":{p}")).unwrap_or_default();
        if authority.host().is_empty() || host != format!("{}{port}", authority.host()) {
            return Err(invalid("a host and a port"));
        }
        let name = match spec.endpoint {
            Endpoint::ChatCompletions => "chat/completions",
            Endpoint::Completions => "completions",
        };
        let path = uri.path().trim_end_matches('/');
        let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        let mut secrets = Secrets::default();
        if let Some(key) = &args.api_key {
            secrets.add(key.reveal());
        }
        secrets.add(&base64::engine::general_purpose::STANDARD.encode(user));
        user.split(':').for_each(|part| secrets.add(part));
        for pair in uri.query().unwrap_or_default().split('&') {
            secrets.add(pair.split_once('=').map_or(pair, |(_, value)| value));
        }
        // A gateway may take the key as a part of the path; others have the model there.
        let may_be_key = |part: &&str| part.len() >= 16 && *part != spec.model;
        path.split('/').filter(may_be_key).for_each(|part| secrets.add(part));
        let shown = format!("{scheme}://{host}");
        Ok(Self { url: format!("{scheme}://{authority}{path}/{name}{query}"), shown, secrets })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::language_model::question::tests::spec;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        server: ServerArgs,
    }

    pub(crate) fn args(words: &[&str]) -> Result<ServerArgs, clap::Error> {
        Command::try_parse_from([&["prompt-gen"], words].concat()).map(|c| c.server)
    }

    #[test]
    fn the_endpoint_stands_after_the_path_and_before_the_query() {
        let of = |url: &str, endpoint| {
            let spec = LanguageModelSpec { endpoint, ..spec() };
            let address = Address::new(&args(&["--base-url", url]).unwrap(), &spec).unwrap();
            (address.url, address.shown)
        };
        let plain = of("http://127.0.0.1:8080/v1/", Endpoint::ChatCompletions);
        assert_eq!(plain.0, "http://127.0.0.1:8080/v1/chat/completions");
        let secret = of("https://me:s3cret@host.test/v1?key=abcdefgh", Endpoint::Completions);
        assert_eq!(secret.0, "https://me:s3cret@host.test/v1/completions?key=abcdefgh");
        assert_eq!(secret.1, "https://host.test");
    }

    #[test]
    fn every_part_of_the_url_that_may_be_a_key_is_hidden() {
        let url = "https://user:passw0rd@host.test/a-model-of-this-gateway/k3yk3yk3yk3yk3yk3y/v1?api-version=1&key=abcd%2Fefgh";
        let args = args(&["--base-url", url, "--api-key", "sk-0123456789"]).unwrap();
        let model = "a-model-of-this-gateway".to_owned();
        let address = Address::new(&args, &LanguageModelSpec { model, ..spec() }).unwrap();
        assert_eq!(address.secrets.redact("a-model-of-this-gateway"), "a-model-of-this-gateway");
        let text = "passw0rd k3yk3yk3yk3yk3yk3y abcd/efgh abcd%2Fefgh sk-0123456789 dXNlcjpwYXNzdzByZA==";
        assert_eq!(address.secrets.redact(text), ["[redacted]"; 6].join(" "));
        assert!(!format!("{address:?} {:?}", args.api_key).contains("sk-0123456789"));
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for url in ["ftp://host/sk-secret", "host/sk-secret", "http://", "http://a b/sk-secret", ""] {
            let error = Address::new(&args(&["--base-url", url]).unwrap(), &spec()).unwrap_err();
            assert!(!error.to_string().contains("sk-secret"), "{error}");
        }
    }

    #[test]
    fn out_of_range_arguments_are_usage_errors() {
        for words in [
            ["--concurrency", "0"],
            ["--timeout", "0"],
            ["--backoff", "x"],
            ["--price", "1"],
            ["--price", "1/-2"],
            ["--max-cost", "1"],
        ] {
            assert_eq!(args(&words).err().unwrap().exit_code(), 2, "{words:?}");
        }
        assert_eq!(args(&["--price", "0.5/2"]).unwrap().price.unwrap().of(1_000_000, 500_000), 1.5);
    }
}
