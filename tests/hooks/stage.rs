//! A hook host of a test's own, and calls with everything left out that a test does not care about.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tagfall::hooks::{ExecCheck, ExecOutcome, ExecRun, HookRun, Hooks, HooksConfig, Inspected, NotAdmitted, Outside};
use tagfall::model::*;

/// A host, and the modules that it may be asked for.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) hooks: Hooks,
}

/// Long enough for a machine that does other things as well.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What calls reach: bytes of one module, and commands by name.
pub(crate) struct Out<'a> {
    pub(crate) wasm: &'a [u8],
}

impl Outside for Out<'_> {
    fn read_module(&self, module: &Digest) -> Result<Vec<u8>, String> {
        assert_eq!(*module, Digest::of(self.wasm));
        Ok(self.wasm.to_vec())
    }
}

impl ExecCheck for Out<'_> {
    fn run<'a>(&'a self, command: &'a str, _: Duration) -> ExecRun<'a> {
        Box::pin(async move {
            match command {
                "greet" => Ok(ExecOutcome { exit: Exit::Code(0), output: "hello from outside".to_owned() }),
                "fail" => Err("it cannot be run today".to_owned()),
                other => panic!("`{other}` is granted to nobody"),
            }
        })
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = common::temp_dir();
        let config = HooksConfig { program: PathBuf::from(env!("CARGO_BIN_EXE_tagfall")), cache: folder.path().join("cache") };
        Self { folder, hooks: Hooks::new(config) }
    }

    pub(crate) async fn admit(&self, wasm: &[u8]) -> Result<Inspected, NotAdmitted> {
        self.hooks.admit(wasm).await
    }

    /// Why a module is refused.
    pub(crate) async fn refused(&self, wasm: &[u8]) -> String {
        match self.admit(wasm).await {
            Err(NotAdmitted::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn call(&self, wasm: &[u8], call: &HookCall) -> HookRun {
        self.hooks.call(call, &Out { wasm }).await
    }

    /// Calls a health check with what `change` makes of a plain call.
    pub(crate) async fn check(&self, wasm: &[u8], change: impl FnOnce(&mut HookCall)) -> HookRun {
        let mut call = plain(wasm);
        change(&mut call);
        self.call(wasm, &call).await
    }
}

/// A health check that is granted nothing.
pub(crate) fn plain(wasm: &[u8]) -> HookCall {
    HookCall {
        group: "web".parse().unwrap(),
        module: Digest::of(wasm),
        input: HookInput::HealthCheck,
        context: HookContext { reason: "interval".to_owned(), attempt: 1, ..HookContext::default() },
        args_json: "{}".into(),
        config_json: r#"{"cfg":{"port":8080,"name":"web"}}"#.into(),
        members: Arc::new([]),
        grants: Arc::default(),
        probes: Arc::default(),
        env: Arc::new([]),
        timeout: LONG,
        memory: 16 << 20,
    }
}

pub(crate) fn grants(net: &[&str], read: &[&str], write: &[&str], exec: &[&str]) -> Arc<Grants> {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let exec: BTreeMap<String, Vec<String>> = exec.iter().map(|name| ((*name).to_owned(), vec!["/bin/x".to_owned()])).collect();
    Arc::new(Grants { net: owned(net), read: owned(read), write: owned(write), env: Vec::new(), exec })
}

/// A check's answer.
pub(crate) fn health(run: &HookRun) -> (HealthStatus, &str) {
    match &run.answer {
        HookAnswer::Health { status, message } => (*status, message),
        other @ (HookAnswer::Outcome { .. } | HookAnswer::Rank(_) | HookAnswer::Failed(_)) => panic!("{other:?}"),
    }
}

/// A failure's.
pub(crate) fn failed(run: &HookRun) -> (HookFailed, &str) {
    match &run.answer {
        HookAnswer::Failed(failure) => (failure.reason, &failure.message),
        other @ (HookAnswer::Health { .. } | HookAnswer::Outcome { .. } | HookAnswer::Rank(_)) => panic!("{other:?}"),
    }
}

/// Answers every connection with the same bytes once it was sent something, then closes it.
pub(crate) fn serve(answer: impl Fn(u16) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut asked = [0; 1024];
            if stream.read(&mut asked).is_ok_and(|count| count > 0) {
                // Whoever asked may be gone.
                drop(stream.write_all(&answer(port)));
            }
        }
    });
    port
}

/// A page of HTTP.
pub(crate) fn ok_page(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
