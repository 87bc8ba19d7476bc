//! Remotes over the network: real servers with key and token, and servers that let down.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tagfall::model::{Reason, Refusal};
use tagfall::source::{Source, SourceConfig};

use super::repository::{Repository, run as run_command};
use super::servers::{Ssh, Web, drip, endless_refs, git_daemon, keygen, silence, tcp};
use super::{config, fetch, find, is_tidy, open, packs, run};

/// First fetch whole, next one its change alone, both the same as the repository says.
async fn follow(repository: &Repository, config: SourceConfig) {
    let url = config.url.clone();
    let source = Source::open(config).unwrap();
    let first = fetch(&source, "v1.0.0").await.unwrap();
    assert_eq!(first.commit.to_string(), repository.git(&["rev-parse", "v1.0.0^{commit}"]), "{url}");
    assert_eq!(first.files.len(), 4, "{url}");
    repository.write("groups/web/config/app.toml.hbs", "port = {{cfg.port}}\nx = 1\n");
    repository.release("v1.1.0");
    let next = fetch(&source, "v1.1.0").await.unwrap();
    assert!(next.stats.objects <= 7, "{url}: tag, commit, four trees, one file at most, not {:?}", next.stats);
    assert_eq!(next.files[0].content.as_deref(), Some(&b"port = {{cfg.port}}\nx = 1\n"[..]), "{url}");
    assert_eq!(source.load(&first.tag).unwrap().files, first.files, "{url}");
    assert!(is_tidy(&repository.store()));
}

#[test]
fn git_daemon_is_followed() {
    let repository = Repository::with_release();
    let url = git_daemon(&repository);
    run(follow(&repository, config(&url, &repository.store())));
}

#[test]
fn smart_http_is_followed_with_a_token() {
    let repository = Repository::with_release();
    let web = Web::start(&repository, "git", &["--token", "s3cret"]);
    let token = repository.beside("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let mut config = config(&web.url("http"), &repository.store());
    config.credentials.token_file = Some(token);
    run(follow(&repository, config));
}

#[test]
fn ssh_is_followed_with_a_key() {
    let repository = Repository::with_release();
    let Some(ssh) = Ssh::start(&repository) else { return };
    let mut config = config(&ssh.url, &repository.store());
    config.credentials.ssh_key_file = Some(ssh.key);
    config.credentials.known_hosts_file = Some(ssh.known_hosts);
    run(follow(&repository, config));
}

async fn refused(config: SourceConfig) -> Refusal {
    let from = Instant::now();
    let bound = Duration::from_secs(config.limits.seconds + 5);
    let refusal = Source::open(config).unwrap().list().await.unwrap_err();
    assert!(from.elapsed() < bound, "{refusal:?} after {:?}", from.elapsed());
    refusal
}

#[test]
fn wrong_and_missing_tokens_are_named_and_never_shown() {
    let repository = Repository::with_release();
    let web = Web::start(&repository, "git", &["--token", "s3cret"]);
    let url = web.url("http");
    let token = repository.beside("token");
    run(async {
        let plain = config(&url, &repository.store());
        let none = refused(plain.clone()).await;
        assert_eq!(none.reason, Reason::AuthenticationFailed);
        assert!(none.message.contains("source.token_file"), "{none:?}");
        let mut with = plain.clone();
        with.credentials.token_file = Some(token.clone());
        let missing = refused(with.clone()).await;
        assert!(missing.message.contains(token.to_str().unwrap()), "{missing:?}");
        std::fs::write(&token, "wr0ng").unwrap();
        let wrong = refused(with).await;
        assert_eq!(wrong.reason, Reason::AuthenticationFailed);
        assert!(wrong.message.contains(token.to_str().unwrap()) && !wrong.message.contains("wr0ng"), "{wrong:?}");
        let mut inside = plain;
        inside.url = url.replace("http://", "http://git:wr0ng@");
        let wrong = refused(inside.clone()).await;
        assert_eq!(wrong.reason, Reason::AuthenticationFailed);
        assert!(!wrong.message.contains("wr0ng"), "{wrong:?}");
        assert!(!Source::open(inside).unwrap().url().contains("wr0ng"));
    });
}

#[test]
fn unknown_hosts_and_wrong_keys_are_named() {
    let repository = Repository::with_release();
    let Some(ssh) = Ssh::start(&repository) else { return };
    let other = keygen(&repository.beside("ssh"), "other");
    run(async {
        let mut config = config(&ssh.url, &repository.store());
        config.credentials.known_hosts_file = Some(ssh.known_hosts.clone());
        let keyless = refused(config.clone()).await;
        assert_eq!(keyless.reason, Reason::AuthenticationFailed);
        assert!(keyless.message.contains("source.ssh_key_file"), "{keyless:?}");
        config.credentials.ssh_key_file = Some(other.clone());
        let wrong = refused(config.clone()).await;
        assert_eq!(wrong.reason, Reason::AuthenticationFailed);
        assert!(wrong.message.contains(other.to_str().unwrap()), "{wrong:?}");
        config.credentials.ssh_key_file = Some(ssh.key);
        let empty = repository.beside("empty");
        std::fs::write(&empty, "").unwrap();
        let mismatched = repository.beside("mismatched");
        let host = std::fs::read_to_string(&ssh.known_hosts).unwrap();
        let (place, _) = host.split_once(' ').unwrap();
        let foreign = std::fs::read_to_string(other.with_extension("pub")).unwrap();
        std::fs::write(&mismatched, format!("{place} {foreign}")).unwrap();
        for file in [empty, mismatched] {
            config.credentials.known_hosts_file = Some(file.clone());
            let unknown = refused(config.clone()).await;
            assert_eq!(unknown.reason, Reason::AuthenticationFailed);
            assert!(unknown.message.contains(&ssh.fingerprint), "{unknown:?}");
            assert!(unknown.message.contains(file.to_str().unwrap()), "{unknown:?}");
        }
    });
}

#[test]
fn certificates_are_checked() {
    let repository = Repository::with_release();
    let (certificate, key) = (repository.beside("cert.pem"), repository.beside("key.pem"));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    make.args(["-addext", "subjectAltName=DNS:localhost", "-out"]).arg(&certificate).arg("-keyout").arg(&key);
    run_command(make, b"");
    let web = Web::start(&repository, "git", &["--tls", certificate.to_str().unwrap(), key.to_str().unwrap()]);
    run(async {
        let mut config = config(&web.url("https"), &repository.store());
        let unknown = refused(config.clone()).await;
        assert_eq!(unknown.reason, Reason::AuthenticationFailed);
        assert!(unknown.message.contains("source.ca_file"), "{unknown:?}");
        config.credentials.ca_file = Some(certificate);
        follow(&repository, config).await;
    });
}

#[test]
fn servers_that_let_down_end_in_plain_words() {
    let repository = Repository::with_release();
    let web = |mode: &str| Web::start(&repository, mode, &[]);
    let (login, forbidden, redirect) = (web("login"), web("forbidden"), web("redirect"));
    let garbage = tcp(|mut stream| drop(stream.write_all(&[0x55; 4096])));
    let closed = tcp(drop);
    let (hang, dripping, endless) = (tcp(silence), tcp(drip), tcp(endless_refs));
    let at = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}/work/.git");
    let elsewhere = redirect.url("http").replace("localhost", "127.0.0.1");
    let cases = [
        (login.url("http"), Reason::GitOperationFailed, "page to sign in"),
        (forbidden.url("http"), Reason::AuthenticationFailed, "may read"),
        (elsewhere, Reason::GitOperationFailed, "redirect"),
        (at("git", garbage), Reason::GitOperationFailed, ""),
        (at("http", garbage), Reason::GitOperationFailed, ""),
        (at("ssh", garbage), Reason::GitOperationFailed, ""),
        (at("git", closed), Reason::GitOperationFailed, ""),
        (at("git", hang), Reason::GitOperationFailed, ""),
        (at("http", hang), Reason::GitOperationFailed, ""),
        (at("https", hang), Reason::GitOperationFailed, ""),
        (at("ssh", hang), Reason::GitOperationFailed, ""),
        (at("git", dripping), Reason::GitOperationFailed, "source.limits.seconds"),
        (at("git", endless), Reason::LimitExceeded, "memory"),
        ("http://host.invalid/x.git".to_owned(), Reason::GitOperationFailed, "host.invalid"),
    ];
    run(async {
        let mut all = tokio::task::JoinSet::new();
        for (number, (url, reason, words)) in cases.into_iter().enumerate() {
            let mut config = config(&url, &repository.store().join(number.to_string()));
            config.limits.seconds = 4;
            config.limits.memory_bytes = 256 << 20;
            all.spawn(async move { (url, reason, words, refused(config).await) });
        }
        while let Some(done) = all.join_next().await {
            let (url, reason, words, refusal) = done.unwrap();
            assert_eq!(refusal.reason, reason, "{url}: {refusal:?}");
            assert!(refusal.message.contains(words), "{url}: {refusal:?}");
            assert!(refusal.message.contains(url.trim_end_matches("/work/.git")), "{url}: {refusal:?}");
        }
    });
}

#[test]
fn a_fetch_that_is_cut_off_leaves_nothing() {
    let repository = Repository::with_release();
    let whole = Web::start(&repository, "git", &[]);
    let cut = Web::start(&repository, "cut", &[]);
    run(async {
        let source = open(&cut.url("http"), &repository.store());
        let refusal = fetch(&source, "v1.0.0").await.unwrap_err();
        assert_eq!(refusal.reason, Reason::GitOperationFailed, "{refusal:?}");
        assert_eq!(packs(&repository.store()), Vec::<String>::new());
        assert!(is_tidy(&repository.store()));
        drop(source);
        let source = open(&whole.url("http"), &repository.store());
        assert!(fetch(&source, "v1.0.0").await.is_ok());
    });
}

#[test]
fn a_tag_that_moves_meanwhile_is_not_taken() {
    let repository = Repository::with_release();
    let url = git_daemon(&repository);
    run(async {
        let source = open(&url, &repository.store());
        let tag = find(&source, "v1.0.0").await;
        repository.commit();
        repository.git(&["tag", "-f", "-a", "-m", "moved", "v1.0.0"]);
        let refusal = source.fetch(&tag, &[]).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::GitOperationFailed);
        assert!(refusal.message.contains("moved"), "{refusal:?}");
        repository.git(&["tag", "-d", "v1.0.0"]);
        let refusal = source.fetch(&tag, &[]).await.unwrap_err();
        assert!(refusal.message.contains("removed"), "{refusal:?}");
        assert!(is_tidy(&repository.store()));
    });
}

#[test]
fn whoever_stops_waiting_stops_the_child() {
    let repository = Repository::new();
    let (told, heard) = channel();
    let port = tcp(move |stream| {
        silence(stream);
        let _ = told.send(());
    });
    run(async move {
        let source = open(&format!("git://127.0.0.1:{port}/x"), &repository.store());
        assert!(tokio::time::timeout(Duration::from_millis(500), source.list()).await.is_err());
        let ended = tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(20)));
        ended.await.unwrap().expect("the connection ends with the child");
    });
}
