//! A thousand services over the death of the supervisor and of the keeper: how long until all of them are known again, whether
//! any of them noticed, and how long a stop of all takes that an earlier keeper has started.

use std::time::Duration;

use tagfall::keeper::wire::Request;
use tagfall::model::ServiceState;

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::direct::{Direct, service};
use crate::program::Ear;
use crate::stage::small_service;
use crate::table::{Row, Sample};

const SERVICES: usize = 1_000;
const KILLS: u32 = 10;
/// A supervisor that lived shorter is not started again at once.
const SETTLED: Duration = Duration::from_millis(5_500);
const BOUND: Duration = Duration::from_secs(60);
const WANTED_SUPERVISOR_MS: f64 = 1_000.0;
const WANTED_KEEPER_MS: f64 = 2_000.0;
const WANTED_STOP_MS: f64 = 3_000.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let ear = Ear::new(&dir.path().join("ear"))?;
    let mut direct = Direct::start(dir.path(), &[])?;
    let (program, fifo) = (small_service()?, ear.path.display().to_string());
    let specs = (0..SERVICES).map(|number| service(&format!("bench{number}"), &[&program, "serve", &fifo]));
    let requests = specs.map(|spec| Ok(Request::Run(Box::new(spec?)))).collect::<Result<Vec<_>, Failure>>()?;
    direct.order(requests)?;
    direct.until("all run", BOUND, |direct| direct.count(ServiceState::Running) == SERVICES)?;
    let before = direct.pids();
    let (mut of_supervisor, mut of_keeper) = (Vec::new(), Vec::new());
    for (kill, took) in [
        (Direct::kill_supervisor as fn(&mut Direct) -> Result<(), Failure>, &mut of_supervisor),
        (Direct::kill_keeper, &mut of_keeper),
    ] {
        for _ in 0..KILLS {
            pause(SETTLED);
            let killed = now_ns();
            kill(&mut direct)?;
            direct.until("all are known", BOUND, |direct| direct.told_all && direct.count(ServiceState::Running) == SERVICES)?;
            took.push(ms_between(killed, now_ns()));
        }
    }
    let after = direct.pids();
    let restarts = before.iter().filter(|(group, pid)| after.get(*group) != Some(pid)).count();
    let groups: Vec<_> = direct.reports.keys().cloned().collect();
    let begun = now_ns();
    direct.order(groups.into_iter().map(|group| Request::Stop { group }))?;
    direct.until("all are stopped", BOUND, |direct| direct.count(ServiceState::Stopped) == SERVICES)?;
    let stopped = ms_between(begun, now_ns());
    let what = |who: &str| format!("SIGKILL of the {who} → {SERVICES} services known again");
    let (of_supervisor, of_keeper) = (Sample::new(of_supervisor), Sample::new(of_keeper));
    let met = (of_supervisor.max() <= WANTED_SUPERVISOR_MS, of_keeper.max() <= WANTED_KEEPER_MS);
    Ok(vec![
        Row::new(what("supervisor"), "<= 1000 ms", of_supervisor.words("ms"), met.0),
        Row::new(what("keeper"), "<= 2000 ms", of_keeper.words("ms"), met.1),
        Row::new(format!("services restarted by it, of {SERVICES}"), "0", restarts.to_string(), restarts == 0),
        Row::new(
            format!("stop of {SERVICES} services that an earlier keeper has started"),
            "<= 3000 ms",
            format!("{stopped:.0} ms"),
            stopped <= WANTED_STOP_MS,
        ),
    ])
}
