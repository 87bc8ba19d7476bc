//! Just enough of HTTP and Redis to see whether a real server answers, without a client crate that could hide a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longest wait for a connection, a write, or a read.
const IO_TIMEOUT: Duration = Duration::from_secs(2);

/// A TCP port of loopback on which nothing listens now.
///
/// # Panics
/// Where the machine has none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}

fn connect(port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT).map_err(|error| format!("{address}: {error}"))?;
    let timed = stream.set_read_timeout(Some(IO_TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(IO_TIMEOUT)));
    timed.map_err(|error| format!("{address}: {error}"))?;
    Ok(stream)
}

/// Status and body of `GET path` on loopback.
///
/// # Errors
/// What went wrong, as text for a wait's last words.
pub fn http_get(port: u16, path: &str) -> Result<(u16, String), String> {
    let mut stream = connect(port)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("port {port}: {error}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| format!("port {port}: {error}"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("port {port}: not HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| format!("port {port}: no status in {head:?}"))?, body.to_owned()))
}

/// Sends one command to a Redis server on loopback and returns the strings and numbers of its answer.
///
/// # Errors
/// What went wrong, as text for a wait's last words; an error answer of the server too.
pub fn redis(port: u16, command: &[&str]) -> Result<Vec<String>, String> {
    let mut stream = connect(port)?;
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).map_err(|error| format!("port {port}: {error}"))?;
    let mut out = Vec::new();
    reply(&mut BufReader::new(stream), &mut out)?;
    Ok(out)
}

fn reply(input: &mut impl BufRead, out: &mut Vec<String>) -> Result<(), String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("no answer: {error}"))?;
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("an empty answer")?;
    match kind {
        "+" | ":" => out.push(rest.to_owned()),
        "*" => (0..rest.parse::<usize>().map_err(|_| line.clone())?).try_for_each(|_| reply(input, out))?,
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().map_err(|_| line.clone())? + 2];
            input.read_exact(&mut bytes).map_err(|error| format!("a cut answer: {error}"))?;
            bytes.truncate(bytes.len() - 2);
            out.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        _ => return Err(line),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        reply(&mut answer.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn answers_of_redis_are_read() {
        assert_eq!(read("+PONG\r\n").unwrap(), ["PONG"]);
        assert_eq!(read("*2\r\n$9\r\nmaxmemory\r\n$8\r\n67108864\r\n").unwrap(), ["maxmemory", "67108864"]);
        for bad in ["-ERR no\r\n", "", "$5\r\nab", "*x\r\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nobody_at_a_port_is_an_error() {
        assert!(http_get(free_port(), "/").is_err());
    }
}
