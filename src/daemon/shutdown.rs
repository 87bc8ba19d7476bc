//! The end of this host's services: hooks before it, stops, hooks after it, links taken away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::calls;
use super::clock::now;
use super::effects::chain;
use super::turning::Turning;
use crate::keeper::wire::Request as ToKeeper;
use crate::model::{GroupName, HookOrder, ServiceState};
use crate::plan::{Event, post_stops, pre_stops};
use crate::process::News;

/// How long services may take to stop before the rest is left to the keeper, which waits a minute for all of it.
const STOPS_MAX: Duration = Duration::from_secs(90);
/// How long all `pre-stop` hooks may take together; then services are stopped whatever they do.
const BEFORE_MAX: Duration = Duration::from_secs(20);
/// How long all `post-stop` hooks may take together; what is not reached is called at the next start.
const AFTER_MAX: Duration = Duration::from_secs(15);

/// Whether there is still something to stop.
fn is_alive(state: ServiceState) -> bool {
    !matches!(state, ServiceState::Stopped | ServiceState::Done | ServiceState::Failed)
}

impl Turning {
    /// Stops every service and takes every link away, then tells the keeper so. What cannot be done is left to the keeper.
    pub(super) async fn shut_down(mut self) {
        self.call_all(pre_stops(&self.core), BEFORE_MAX).await;
        let up = self.stop_all().await;
        let context = Arc::clone(&self.context);
        tokio::join!(self.wait_stopped(up), context.containers.stop_all(STOPS_MAX));
        while let Ok(event) = self.events.try_recv() {
            self.observe(event);
        }
        self.call_all(post_stops(&self.core), AFTER_MAX).await;
        self.forget_processes().await;
        self.remove_links().await;
        self.serving.shutdown().await;
        if let Err(error) = self.context.keeper.request(ToKeeper::Finished).await {
            tracing::warn!(error = chain(&error), "the keeper did not hear that all is done");
        }
    }

    /// Calls hooks at once, and waits for the answers so long at most.
    async fn call_all(&self, orders: Vec<HookOrder>, bound: Duration) {
        let mut calls = tokio::task::JoinSet::new();
        for order in orders {
            let context = self.context.clone();
            calls.spawn(async move { calls::call(&context, order).await });
        }
        if tokio::time::timeout(bound, async { while calls.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(left = calls.len(), "hooks have not answered in time");
        }
    }

    /// The processes of the next start are others, by the same numbers.
    async fn forget_processes(&self) {
        let context = self.context.clone();
        let forgotten = tokio::task::spawn_blocking(move || {
            let owed = context.state(|state| !state.hooks.is_empty());
            if owed { context.remember(crate::store::State::processes_ended) } else { Ok(()) }
        });
        match forgotten.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "which hooks were called is not written down"),
            Err(error) => tracing::warn!(%error, "which hooks were called is not written down"),
        }
    }

    async fn stop_all(&self) -> BTreeSet<GroupName> {
        let groups = self.core.observed().groups.iter();
        let groups = groups.filter(|(_, facts)| !facts.in_container);
        let alive = groups.filter(|(_, facts)| facts.service.as_ref().is_some_and(|report| is_alive(report.state)));
        let mut up = BTreeSet::new();
        for (group, _) in alive {
            match self.context.keeper.request(ToKeeper::Stop { group: group.clone() }).await {
                Ok(()) => drop(up.insert(group.clone())),
                Err(error) => tracing::warn!(%group, error = chain(&error), "not told to stop: the keeper ends it"),
            }
        }
        up
    }

    async fn wait_stopped(&mut self, mut up: BTreeSet<GroupName>) {
        let deadline = tokio::time::Instant::now() + STOPS_MAX;
        while !up.is_empty() {
            match tokio::time::timeout_at(deadline, self.news.recv()).await {
                Ok(Some(News::Report(report))) => {
                    if !is_alive(report.state) {
                        up.remove(&report.group);
                    }
                    self.core.observe(Event::Service(report), now());
                }
                Ok(Some(News::Gone(group))) => drop(up.remove(&group)),
                Ok(Some(News::Hello(_) | News::SnapshotEnd | News::Shutdown)) => {}
                Ok(Some(News::Lost) | None) | Err(_) => break,
            }
        }
    }

    async fn remove_links(&self) {
        let groups = self.core.observed().groups.iter();
        let links = groups.filter_map(|(name, facts)| Some((name.clone(), facts.disk.link.clone()?)));
        let links: Vec<(GroupName, String)> = links.collect();
        let context = self.context.clone();
        let removed = tokio::task::spawn_blocking(move || {
            for (group, path) in links {
                if let Err(error) = context.publisher.unlink(&group, &path) {
                    tracing::warn!(%group, error = chain(&error), "its link stays");
                }
            }
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "links may stay");
        }
    }
}
