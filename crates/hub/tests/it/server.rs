//! A hub of one repository: answers as the real one does, requests one after the other.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does.
#[derive(Clone)]
pub struct Behaviour {
    /// The repository.
    pub repo: &'static str,
    /// Name and content of the files.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Announced instead of the content's SHA-256.
    pub etag: Option<String>,
    /// Announced commit.
    pub commit: &'static str,
    /// Bytes after which each transfer breaks.
    pub breaks_after: Option<usize>,
    /// Token without which it answers 401.
    pub token: Option<&'static str>,
    /// Whether the bytes come from another address, as those of large files do.
    pub redirects: bool,
}

/// A running server; it ends with the test's process.
pub struct Server {
    pub endpoint: String,
    /// First lines of the requests.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is the client's business.
                let _ = answer(stream.unwrap(), &behaviour, &log);
            }
        });
        Server { endpoint, requests }
    }

    pub fn num_requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn answer(mut stream: TcpStream, behaviour: &Behaviour, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).map(|l| l.to_lowercase()).collect();
    log.lock().unwrap().push(request.clone());
    let header = |name: &str| {
        headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    let refuse = |stream: &mut TcpStream, status: &str| {
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    if let Some(token) = behaviour.token
        && header("authorization").as_deref() != Some(&format!("bearer {token}"))
    {
        return refuse(&mut stream, "401 Unauthorized");
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let elsewhere = path.strip_prefix("/elsewhere");
    let name = elsewhere.unwrap_or(path).strip_prefix(&format!("/{}/resolve/main/", behaviour.repo));
    let Some((_, content)) = behaviour.files.iter().find(|(file, _)| Some(*file) == name) else {
        return refuse(&mut stream, "404 Not Found");
    };
    let etag = behaviour.etag.clone().unwrap_or_else(|| sha256(content));
    let announced = format!("X-Repo-Commit: {}\r\nX-Linked-Etag: \"{etag}\"", behaviour.commit);
    if behaviour.redirects && elsewhere.is_none() {
        let host = header("host").unwrap_or_default();
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: http://{host}/elsewhere{path}\r\n{announced}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let range = header("range").unwrap_or_default();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or("0-").split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = last.parse().map_or(content.len(), |last: usize| last + 1).min(content.len());
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/{}\r\n\
         {announced}\r\nETag: \"other\"\r\nConnection: close\r\n\r\n",
        end - first,
        end - 1,
        content.len(),
    )?;
    let end = behaviour.breaks_after.map_or(end, |limit| end.min(first + limit));
    stream.write_all(&content[first..end])
}

pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
