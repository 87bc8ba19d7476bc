//! The show: what is done, and what is waited for. Each step fails the demo where what it promises does not come.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, interval};

use super::content::{BROKEN_KEY, GREETING, HELLO, RELOAD_KEY, SECOND_GREETING};
use super::folder::Folder;
use super::page::{Page, When};
use super::stage::{Answer, Look, Stage};
use super::{CliError, Script};
use crate::api::wire::Status;
use crate::cli::text::{DIM, now};
use crate::model::{ConditionKind, Truth};

/// How long the service is asked for changes after an event.
const CURIOUS: Duration = Duration::from_secs(2);
/// How often, meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Shows everything, then follows what is pushed, unless it is only to be shown once.
pub(super) async fn run(
    stage: &mut Stage,
    script: &Script,
    folder: &Folder,
    page: &Page,
    once: bool,
) -> Result<(), CliError> {
    let end = if once { "It ends by itself" } else { "Ctrl-C ends it" };
    page.say(&format!("Tagfall's demo, in {}. {end}, and nothing stays behind.", folder.root().display()))?;
    let first = first_release(stage, script, folder, page).await?;
    let second = pushed_tag(stage, script, page, &first).await?;
    broken_tag(stage, script, page, &second).await?;
    let third = killed_service(stage, script, page, &second).await?;
    your_turn(script, folder, page, once)?;
    if once { Ok(()) } else { follow(stage, script, page, third).await }
}

async fn first_release(stage: &mut Stage, script: &Script, folder: &Folder, page: &Page) -> Result<Answer, CliError> {
    page.step(1, "A supervisor follows the tags of a repository")?;
    page.facts(&[
        ("repository", folder.bare().display().to_string()),
        ("your clone", folder.clone_dir().display().to_string()),
        ("supervisor", format!("{}, log in {}", folder.settings().display(), folder.log().display())),
    ])?;
    let begun = now();
    script.repository.release("v0.1.0", "The first release", &script.content.files())?;
    script.repository.push(Some("v0.1.0"))?;
    let when = When::Since(begun);
    let first = stage.watch("the first release running", page, when, async |look| served(look, GREETING).await).await?;
    page.answer(when, &url(script), &said(&first))?;
    let status = converged(stage, page, when, "v0.1.0").await?;
    let motd = folder.etc().join("motd/motd");
    let text = std::fs::read_to_string(&motd);
    let text = text.map_err(|error| CliError::failed(format!("read the published file `{}`", motd.display()), error))?;
    page.text(&format!("{DIM}$ tagfall status{DIM:#}"))?;
    page.status(&status)?;
    page.text(&format!("{DIM}$ cat {}{DIM:#}\n{text}", shell(&motd.display().to_string())))?;
    Ok(first)
}

async fn pushed_tag(stage: &mut Stage, script: &Script, page: &Page, first: &Answer) -> Result<Answer, CliError> {
    page.step(2, "A tag is pushed: v0.2.0 has another greeting")?;
    let files = [(HELLO, script.content.hello(SECOND_GREETING, RELOAD_KEY))];
    script.repository.release("v0.2.0", "Another greeting", &files)?;
    let begun = now();
    script.repository.push(Some("v0.2.0"))?;
    let when = When::Since(begun);
    let second = stage.watch("the new greeting", page, when, async |look| served(look, SECOND_GREETING).await).await?;
    page.answer(when, &url(script), &said(&second))?;
    converged(stage, page, when, "v0.2.0").await?;
    expect(second.pid == first.pid, "keep the process over a reload", || format!("{} became {}", first.pid, second.pid))?;
    page.text(&format!("The same process {} read its new file; nothing else was touched.", second.pid))?;
    Ok(second)
}

async fn broken_tag(stage: &mut Stage, script: &Script, page: &Page, second: &Answer) -> Result<(), CliError> {
    page.step(3, &format!("A broken tag is pushed: v0.3.0 says `{BROKEN_KEY}`"))?;
    let files = [(HELLO, script.content.hello("Never said", BROKEN_KEY))];
    script.repository.release("v0.3.0", "A mistake", &files)?;
    let begun = now();
    script.repository.push(Some("v0.3.0"))?;
    let look = async |look: &Look| Ok(look.status().await?.refused.into_iter().find(|refused| refused.tag.as_str() == "v0.3.0"));
    let refused = stage.watch("the broken tag refused", page, When::Since(begun), look).await?;
    expect(refused.message.contains(&format!("{HELLO}:")), "see the place of the mistake", || refused.message.clone())?;
    let status = converged(stage, page, When::Since(begun), "v0.2.0").await?;
    let answer = stage.look.answer().await;
    expect(answer.as_ref() == Some(second), "keep what ran", || format!("{answer:?}"))?;
    page.text(&format!("{DIM}$ tagfall status{DIM:#}"))?;
    page.status(&status)?;
    // So that what the newcomer commits next stands on good ground.
    script.repository.commit("Mend the mistake", &[(HELLO, script.content.hello(SECOND_GREETING, RELOAD_KEY))])?;
    script.repository.push(None)
}

async fn killed_service(stage: &mut Stage, script: &Script, page: &Page, before: &Answer) -> Result<Answer, CliError> {
    page.step(4, &format!("The service dies: kill -9 {}", before.pid))?;
    let begun = now();
    let killed = Pid::from_raw(before.pid).map(|pid| kill_process(pid, Signal::KILL));
    expect(killed == Some(Ok(())), "kill the service", || format!("{killed:?}"))?;
    let when = When::Since(begun);
    let look = async |look: &Look| Ok(look.answer().await.filter(|answer| answer.pid != before.pid));
    let after = stage.watch("the service back", page, when, look).await?;
    page.answer(when, &url(script), &said(&after))?;
    converged(stage, page, when, "v0.2.0").await?;
    expect(after.greeting == before.greeting, "see what was said before", || after.greeting.clone())?;
    Ok(after)
}

fn your_turn(script: &Script, folder: &Folder, page: &Page, once: bool) -> Result<(), CliError> {
    let quote = |path: &Path| shell(&path.display().to_string());
    let line = |text: &str| text.to_owned();
    page.step(5, if once { "What you would do next, without --once" } else { "Your turn, in another terminal" })?;
    page.commands(&[
        (format!("cd {}", quote(&folder.clone_dir())), ""),
        (format!("sed -i 's/^greeting = .*/greeting = \"Hello from me\"/' {HELLO}"), "or any editor"),
        (line("git commit -am \"My greeting\""), ""),
        (line("git tag -a v0.4.0 -m \"My greeting\""), "annotated: a tag says who and when"),
        (line("git push origin main --tags"), "and look here"),
    ])?;
    let bin = script.program.parent().unwrap_or(Path::new("/"));
    page.text("\nand to look around:")?;
    page.commands(&[
        (format!("export PATH={}:\"$PATH\" TAGFALL_API={}", quote(bin), shell(&format!("unix:{}", folder.socket().display()))), ""),
        (line("tagfall status"), "what runs, from which tag, and why not"),
        (line("tagfall why hello"), "what holds a group back"),
        (format!("tagfall trace {}", quote(&folder.etc().join("hello/hello.toml"))), "where a file comes from"),
        (line("tagfall diff v0.1.0 v0.2.0"), "what a tag changes"),
        (line("tagfall service logs hello"), "what the service said"),
        (format!("curl http://{}/", url(script)), ""),
    ])?;
    if once { Ok(()) } else { page.say("\nWhat you push is shown here. Ctrl-C ends the demo and removes everything.") }
}

/// Shows events, and the service's answer where it has changed, until the demo is ended.
async fn follow(stage: &mut Stage, script: &Script, page: &Page, mut known: Answer) -> Result<(), CliError> {
    let mut tick = interval(ASK_EVERY);
    let mut until = Instant::now();
    loop {
        tokio::select! {
            biased;
            event = stage.event() => {
                page.event(When::Clock, &event?)?;
                until = Instant::now() + CURIOUS;
                continue;
            }
            _ = tick.tick(), if Instant::now() < until => {}
        }
        if let Some(answer) = stage.look.answer().await.filter(|answer| *answer != known) {
            page.answer(When::Clock, &url(script), &said(&answer))?;
            known = answer;
        }
    }
}

async fn served(look: &Look, greeting: &str) -> Result<Option<Answer>, CliError> {
    Ok(look.answer().await.filter(|answer| answer.greeting == greeting))
}

/// Waits until everything that a release asks for is so.
async fn converged(stage: &mut Stage, page: &Page, when: When, tag: &str) -> Result<Status, CliError> {
    let look = async |look: &Look| {
        let status = look.status().await?;
        let release = status.release.as_ref().filter(|release| release.applied_at.is_some());
        let ready = status.condition(ConditionKind::Ready).is_some_and(|ready| ready.status == Truth::True);
        Ok((ready && release.is_some_and(|release| release.tag.as_str() == tag)).then_some(status))
    };
    stage.watch(&format!("everything of {tag} in place"), page, when, look).await
}

fn expect(held: bool, what: &str, seen: impl FnOnce() -> String) -> Result<(), CliError> {
    if held { Ok(()) } else { Err(CliError::failed(what, seen())) }
}

fn url(script: &Script) -> String {
    format!("127.0.0.1:{}", script.content.port)
}

fn said(answer: &Answer) -> String {
    format!("{} (process {})", answer.greeting, answer.pid)
}

/// A word as any shell takes it.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_every_path_as_one_word() {
        assert_eq!(shell("/tmp/tagfall-demo-1/config"), "/tmp/tagfall-demo-1/config");
        assert_eq!(shell("/tmp/a b/$x"), "'/tmp/a b/$x'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell(""), "''");
    }
}
