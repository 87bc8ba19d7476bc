//! `tagfall demo-web`: a web server of a page, so that what `init` and `demo` make has a service that runs on any Linux.
//!
//! SIGHUP reads its file again, SIGTERM and SIGINT end it. It is no example of a web server: one short answer per connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, Context, Exit, Out};

/// Longest request that is read.
const REQUEST_MAX_BYTES: usize = 8 * 1024;
/// A client that is slower than this gets no answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest file that is read.
const FILE_MAX_BYTES: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "SIGHUP reads the file again, SIGTERM ends it.\n\n\
    Example:\n  tagfall demo-web hello.toml        with `listen = \"127.0.0.1:8880\"` and `greeting = \"Hello\"`")]
pub(super) struct Args {
    /// A TOML file with `listen` and `greeting`
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    listen: SocketAddr,
    greeting: String,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let page = read(&args.file)?;
    context.wait(serve(args.file, page, context.out))
}

fn read(file: &Path) -> Result<Page, CliError> {
    let step = || format!("read `{}`", file.display());
    let length = std::fs::metadata(file).map_err(|error| CliError::could_not_run(step(), error))?.len();
    if length > FILE_MAX_BYTES {
        return Err(CliError::usage(format!("`{}` is longer than {FILE_MAX_BYTES} bytes", file.display()), "shorten it"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| CliError::could_not_run(step(), error))?;
    toml::from_str(&text).map_err(|error| CliError::could_not_run(step(), error))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| CliError::could_not_run(format!("listen at {address}"), error))
}

fn listen_for(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::could_not_run("listen for signals", error))
}

async fn serve(file: PathBuf, mut page: Page, out: Out) -> Result<Exit, CliError> {
    let (mut hangup, mut end) = (listen_for(SignalKind::hangup())?, listen_for(SignalKind::terminate())?);
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let mut listener = bind(page.listen).await?;
    out.talk(&format!("listening at {}\n", page.listen));
    loop {
        tokio::select! {
            _ = end.recv() => return Ok(Exit::Done),
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = hangup.recv() => match renew(&file, &page, &mut listener).await {
                Ok(renewed) => {
                    out.talk(&format!("read `{}` again\n", file.display()));
                    page = renewed;
                }
                Err(error) => out.talk(&format!("{}everything stays as it was\n", super::error::describe(&error))),
            },
            client = listener.accept() => {
                let (stream, _) = client.map_err(|error| CliError::failed("take a connection", error))?;
                let text = format!("{}\n(process {})\n", page.greeting, std::process::id());
                tokio::spawn(async move {
                    // A client that goes away is not waited for, and nobody is told.
                    let _ = tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, text)).await;
                });
            }
        }
    }
}

/// Reads the file again; moves to another address where it names one.
async fn renew(file: &Path, old: &Page, listener: &mut TcpListener) -> Result<Page, CliError> {
    let page = read(file)?;
    if page.listen != old.listen {
        *listener = bind(page.listen).await?;
    }
    Ok(page)
}

async fn answer(mut stream: TcpStream, text: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX_BYTES {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/") => ("200 OK", text),
        ("GET" | "HEAD", "/healthz") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", "there is only `/` and `/healthz`\n".to_owned()),
        (_, _) => ("405 Method Not Allowed", "only GET is answered\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}
