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
use crate::cli::text::now;
use crate::model::{ConditionKind, Reason, Timestamp, Truth};

/// How long the service is asked for changes after an event.
const CURIOUS: Duration = Duration::from_secs(2);
/// How often, meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Shows everything, then follows what is pushed, unless it is only to be shown once.
pub(super) async fn run(stage: &mut Stage, script: &Script, folder: &Folder, page: &Page, once: bool) -> Result<(), CliError> {
    page.say(&format!("Tagfall's demo, in {}", folder.root().display()))?;
    first_release(stage, script, folder, page).await?;
    let second = pushed_tag(stage, script, page).await?;
    broken_tag(stage, script, page, &second).await?;
    unsigned_tag(stage, script, page, &second).await?;
    let third = killed_service(stage, script, page, &second).await?;
    your_turn(script, folder, page, once)?;
    if once {
        return page.say("\nAll of this went as it should.");
    }
    page.say("\nWhat you push is shown here. Ctrl-C ends the demo.\n")?;
    follow(stage, script, page, third).await
}

async fn first_release(stage: &mut Stage, script: &Script, folder: &Folder, page: &Page) -> Result<(), CliError> {
    page.step(1, "A supervisor follows the tags of a repository")?;
    page.facts(&[
        ("repository", folder.bare().display().to_string()),
        ("your clone", folder.clone_dir().display().to_string()),
        ("supervisor", format!("{}, log in {}", folder.settings().display(), folder.log().display())),
        ("trusts", script.repository.allowed_signers().display().to_string()),
    ])?;
    let begun = now();
    script.repository.release("v0.1.0", "The first release", &script.content.files())?;
    script.repository.push(Some("v0.1.0"))?;
    let greeted = async |look: &Look| served(look, GREETING).await;
    let (_, status) = answered(stage, script, page, begun, "v0.1.0", greeted).await?;
    let motd = folder.etc().join("motd/motd");
    let text = std::fs::read_to_string(&motd);
    let text = text.map_err(|error| CliError::failed(format!("read the published file `{}`", motd.display()), error))?;
    page.prompt("tagfall status")?;
    page.status(&status)?;
    page.prompt(&format!("cat {}", shell(&motd.display().to_string())))?;
    page.text(&text)
}

async fn pushed_tag(stage: &mut Stage, script: &Script, page: &Page) -> Result<Answer, CliError> {
    page.step(2, "A tag is pushed: v0.2.0 has another greeting")?;
    let before = stage.look.answer().await;
    let files = [(HELLO, script.content.hello(SECOND_GREETING, RELOAD_KEY))];
    script.repository.release("v0.2.0", "Another greeting", &files)?;
    let begun = now();
    script.repository.push(Some("v0.2.0"))?;
    let greeted = async |look: &Look| served(look, SECOND_GREETING).await;
    let (after, _) = answered(stage, script, page, begun, "v0.2.0", greeted).await?;
    let same = before.as_ref().is_some_and(|before| before.pid == after.pid);
    expect(same, "keep the process over a reload", || format!("{before:?} became {after:?}"))?;
    page.text(&format!("The same process {} has read its new file. Nothing else was touched.", after.pid))?;
    Ok(after)
}

async fn broken_tag(stage: &mut Stage, script: &Script, page: &Page, before: &Answer) -> Result<(), CliError> {
    page.step(3, &format!("A broken tag is pushed: v0.3.0 says `{BROKEN_KEY}`"))?;
    let files = [(HELLO, script.content.hello("Never said", BROKEN_KEY))];
    script.repository.release("v0.3.0", "A mistake", &files)?;
    let begun = now();
    script.repository.push(Some("v0.3.0"))?;
    let when = When::Since(begun);
    let look = async |look: &Look| Ok(look.status().await?.refused.into_iter().find(|refused| refused.tag.as_str() == "v0.3.0"));
    let refused = stage.watch("the broken tag refused", page, when, look).await?;
    stage.settle().await?.iter().try_for_each(|event| page.event(when, event))?;
    expect(refused.message.contains(&format!("{HELLO}:")), "see the place of the mistake", || refused.message.clone())?;
    let status = converged(stage, page, when, "v0.2.0", before.pid).await?;
    let answer = stage.look.answer().await;
    expect(answer.as_ref() == Some(before), "keep what ran", || format!("{before:?} became {answer:?}"))?;
    page.prompt("tagfall status")?;
    page.status(&status)?;
    // So that what the newcomer commits next stands on good ground.
    script.repository.commit("Mend the mistake", &[(HELLO, script.content.hello(SECOND_GREETING, RELOAD_KEY))])?;
    script.repository.push(None)
}

async fn unsigned_tag(stage: &mut Stage, script: &Script, page: &Page, before: &Answer) -> Result<(), CliError> {
    page.step(4, "Somebody without the key pushes v9.9.9")?;
    script.repository.tag("v9.9.9", "Not signed", false)?;
    let begun = now();
    script.repository.push(Some("v9.9.9"))?;
    let when = When::Since(begun);
    let look = async |look: &Look| Ok(look.status().await?.refused.into_iter().find(|refused| refused.tag.as_str() == "v9.9.9"));
    let refused = stage.watch("the unsigned tag refused", page, when, look).await?;
    stage.settle().await?.iter().try_for_each(|event| page.event(when, event))?;
    expect(refused.reason == Reason::InvalidTagSignature, "see why the tag is refused", || refused.message.clone())?;
    let answer = stage.look.answer().await;
    expect(answer.as_ref() == Some(before), "keep what ran", || format!("{before:?} became {answer:?}"))
}

async fn killed_service(stage: &mut Stage, script: &Script, page: &Page, before: &Answer) -> Result<Answer, CliError> {
    page.step(5, &format!("The service is killed: kill -9 {}", before.pid))?;
    let begun = now();
    let killed = Pid::from_raw(before.pid).map(|pid| kill_process(pid, Signal::KILL));
    expect(killed == Some(Ok(())), "kill the service", || format!("{killed:?}"))?;
    let back = async |look: &Look| Ok(look.answer().await.filter(|answer| answer.pid != before.pid));
    let (after, _) = answered(stage, script, page, begun, "v0.2.0", back).await?;
    expect(after.greeting == before.greeting, "see what was said before", || after.greeting.clone())?;
    Ok(after)
}

fn your_turn(script: &Script, folder: &Folder, page: &Page, once: bool) -> Result<(), CliError> {
    let quote = |path: &Path| shell(&path.display().to_string());
    let line = |text: &str| text.to_owned();
    page.step(6, if once { "What there is to try next, without --once" } else { "Your turn, in another terminal" })?;
    page.commands(&[
        format!("cd {}", quote(&folder.clone_dir())),
        format!("sed -i 's/^greeting = .*/greeting = \"Hello from me\"/' {HELLO}"),
        line("git commit -am \"My greeting\""),
        line("git tag -s v0.4.0 -m \"My greeting\""),
        line("git push origin main --tags"),
        format!("curl http://{}/", address(script)),
    ])?;
    let bin = script.program.parent().unwrap_or(Path::new("/"));
    page.text("\nand to look around:")?;
    let api = shell(&format!("unix:{}", folder.socket().display()));
    page.commands(&[format!("export PATH={}:\"$PATH\" TAGFALL_API={api}", quote(bin))])?;
    page.explained(&[
        (line("tagfall status"), "what runs, from which tag, and why not"),
        (line("tagfall why hello"), "what holds a group back"),
        (line("tagfall diff v0.1.0 v0.2.0"), "what a tag changes"),
        (line("tagfall service logs hello"), "what the service said"),
        (format!("tagfall trace {}", quote(&folder.etc().join("hello/hello.toml"))), "where a file comes from"),
    ])
}

/// Waits for an answer of the service and for all that belongs to it, and shows both in the order in which they came.
async fn answered(
    stage: &mut Stage,
    script: &Script,
    page: &Page,
    begun: Timestamp,
    tag: &str,
    look: impl AsyncFn(&Look) -> Result<Option<Answer>, CliError>,
) -> Result<(Answer, Status), CliError> {
    let when = When::Since(begun);
    let answer = stage.watch("the service answer as it should", page, when, look).await?;
    let heard = now();
    let events = stage.settle().await?;
    let (before, after) = events.split_at(events.partition_point(|event| event.time <= heard));
    before.iter().try_for_each(|event| page.event(when, event))?;
    page.answer(when, heard, &address(script), &said(&answer))?;
    after.iter().try_for_each(|event| page.event(when, event))?;
    let status = converged(stage, page, when, tag, answer.pid).await?;
    stage.settle().await?.iter().try_for_each(|event| page.event(when, event))?;
    Ok((answer, status))
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
            page.answer(When::Clock, now(), &address(script), &said(&answer))?;
            known = answer;
        }
    }
}

async fn served(look: &Look, greeting: &str) -> Result<Option<Answer>, CliError> {
    Ok(look.answer().await.filter(|answer| answer.greeting == greeting))
}

/// Waits until everything that a release asks for is so, and this process is the service.
async fn converged(stage: &mut Stage, page: &Page, when: When, tag: &str, pid: i32) -> Result<Status, CliError> {
    let look = async |look: &Look| {
        let status = look.status().await?;
        let release = status.release.as_ref().filter(|release| release.applied_at.is_some());
        let ready = status.condition(ConditionKind::Ready).is_some_and(|ready| ready.status == Truth::True);
        let pids = status.groups.iter().filter_map(|group| group.service.as_ref()?.pid);
        // A status from before the process was killed would say that all is well.
        let known = pids.into_iter().any(|found| found.cast_signed() == pid);
        Ok((ready && known && release.is_some_and(|release| release.tag.as_str() == tag)).then_some(status))
    };
    stage.watch(&format!("everything of {tag} in place"), page, when, look).await
}

fn expect(held: bool, what: &str, seen: impl FnOnce() -> String) -> Result<(), CliError> {
    if held { Ok(()) } else { Err(CliError::failed(what, seen())) }
}

fn address(script: &Script) -> String {
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
