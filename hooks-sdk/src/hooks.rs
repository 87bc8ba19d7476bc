//! The ten hooks, a macro for each: it makes a function the hook of this module.
//!
//! A macro lays down what the linker needs to see, and nothing that runs: the way of a call is in `serve.rs`. Not for
//! WebAssembly, it only holds the function's type against the hook's, so that a hook's crate compiles and is tested anywhere.

/// What the macros have in common: `Hook` gets the function of the hook's trait, and is exported under the hook's name.
#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (
        $module:ident, $type_of:ident, $export:ident,
        $name:ident($($arg:ident: $ty:ty)?) -> $answer:ty,
        $serve:ident, $hook:path, ($($handed:expr)?)
    ) => {
        const _: () = {
            enum Hook {}
            impl $crate::__private::$module::Guest for Hook {
                fn $name(
                    context: $crate::__private::Context,
                    $($arg: $ty)?
                ) -> ::core::result::Result<$answer, $crate::__private::Failure> {
                    $crate::__private::$serve(context, |call| $hook(call $(, $handed)?))
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::$export!(Hook with_types_in $crate::__private::$module);
            #[cfg(target_arch = "wasm32")]
            $crate::$type_of!();
            // Where nothing is exported, this is the use without which a compiler would call the hook dead code.
            let _ = <Hook as $crate::__private::$module::Guest>::$name;
        };
    };
}

/// Makes a function the hook `init`.
///
/// Before every start. Where it fails, the service is not started, and the hook is called again later.
///
/// Prepares what the service needs.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::init!(prepare);
///
/// fn prepare(call: &Call) -> Result<()> {
///     exec::run("migrate")?.successful()?;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! init {
    ($hook:path) => {
        $crate::__hook! {
            init, __type_of_init, __export_tagfall_hooks_init_0_1_0_cabi,
            run() -> (),
            plain, $hook, ()
        }
    };
}

/// Makes a function the hook `post-run`.
///
/// Once after a start. Its failure is reported and stops nothing.
///
/// It is also handed the service's main process; `None` where that is a container.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::post_run!(started);
///
/// fn started(call: &Call, pid: Option<u32>) -> Result<()> {
///     log::info(format!("{} runs as {pid:?}", call.group));
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! post_run {
    ($hook:path) => {
        $crate::__hook! {
            post_run, __type_of_post_run, __export_tagfall_hooks_post_run_0_1_0_cabi,
            run(pid: ::core::option::Option<u32>) -> (),
            plain, $hook, (pid)
        }
    };
}

/// Makes a function the hook `health-check`.
///
/// At once after a start, then at every interval. Never two at a time.
///
/// Says how the service is. A server that does not answer is `critical` by `?`; any other error counts as `unknown`.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::health_check!(check);
///
/// fn check(call: &Call) -> Result<Report> {
///     net::connect("127.0.0.1:6379")?;
///     Ok(Report::ok("it listens"))
/// }
/// ```
#[macro_export]
macro_rules! health_check {
    ($hook:path) => {
        $crate::__hook! {
            health_check, __type_of_health_check, __export_tagfall_hooks_health_check_0_1_0_cabi,
            check() -> $crate::__private::Report,
            check, $hook, ()
        }
    };
}

/// Makes a function the hook `reconfigure`.
///
/// After the service's published files have changed.
///
/// It is also handed the names of the files that differ, relative to the mount path.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::reconfigure!(reconfigure);
///
/// fn reconfigure(call: &Call, changed: &[String]) -> Result<Outcome> {
///     let whole = changed.iter().any(|name| name == "modules.conf");
///     Ok(if whole { Outcome::restart() } else { Outcome::signal("SIGHUP") })
/// }
/// ```
#[macro_export]
macro_rules! reconfigure {
    ($hook:path) => {
        $crate::__hook! {
            reconfigure, __type_of_reconfigure, __export_tagfall_hooks_reconfigure_0_1_0_cabi,
            run(changed: ::std::vec::Vec<::std::string::String>) -> $crate::__private::Outcome,
            decide, $hook, (&changed)
        }
    };
}

/// Makes a function the hook `file-updated`.
///
/// After files that were uploaded to the group have arrived.
///
/// It is also handed the names of the files that arrived.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::file_updated!(arrived);
///
/// fn arrived(call: &Call, paths: &[String]) -> Result<Outcome> {
///     Ok(Outcome::restart().because(format!("{} files arrived", paths.len())))
/// }
/// ```
#[macro_export]
macro_rules! file_updated {
    ($hook:path) => {
        $crate::__hook! {
            file_updated, __type_of_file_updated, __export_tagfall_hooks_file_updated_0_1_0_cabi,
            run(paths: ::std::vec::Vec<::std::string::String>) -> $crate::__private::Outcome,
            decide, $hook, (&paths)
        }
    };
}

/// Makes a function the hook `suitability`.
///
/// Before an election of a leader.
///
/// Says how well this member would lead: the highest number wins. A failure counts as 0.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::suitability!(rank);
///
/// fn rank(call: &Call) -> Result<u64> {
///     let offset = files::read_text("/var/lib/redis/offset")?;
///     Ok(offset.trim().parse()?)
/// }
/// ```
#[macro_export]
macro_rules! suitability {
    ($hook:path) => {
        $crate::__hook! {
            suitability, __type_of_suitability, __export_tagfall_hooks_suitability_0_1_0_cabi,
            rank() -> u64,
            plain, $hook, ()
        }
    };
}

/// Makes a function the hook `pre-update`.
///
/// Before a member is updated. It may drain, for as long as its timeout.
///
/// It is also handed the tag that is coming.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::pre_update!(drain);
///
/// fn drain(call: &Call, next: &str) -> Result<()> {
///     http::post("http://127.0.0.1:8080/drain", next)?;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! pre_update {
    ($hook:path) => {
        $crate::__hook! {
            pre_update, __type_of_pre_update, __export_tagfall_hooks_pre_update_0_1_0_cabi,
            run(next: ::std::string::String) -> (),
            plain, $hook, (&next)
        }
    };
}

/// Makes a function the hook `post-update`.
///
/// After a member was updated: whether it counts as such. Only `ok` and `warning` let the rollout go on.
///
/// It is also handed the tag that ran before. A server that does not answer is `critical` by `?`, as in a health check.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::post_update!(proven);
///
/// fn proven(call: &Call, previous: &str) -> Result<Report> {
///     let answer = http::get("http://127.0.0.1:8080/version")?;
///     let stale = answer.text()?.trim() == previous;
///     Ok(if stale { Report::critical("it still runs the old one") } else { Report::ok("it runs the new one") })
/// }
/// ```
#[macro_export]
macro_rules! post_update {
    ($hook:path) => {
        $crate::__hook! {
            post_update, __type_of_post_update, __export_tagfall_hooks_post_update_0_1_0_cabi,
            check(previous: ::std::string::String) -> $crate::__private::Report,
            check, $hook, (&previous)
        }
    };
}

/// Makes a function the hook `pre-stop`.
///
/// Before a service is stopped. It may drain, for as long as its timeout; the service is stopped in any case.
///
/// Prepares the end.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::pre_stop!(drain);
///
/// fn drain(call: &Call) -> Result<()> {
///     http::post("http://127.0.0.1:8080/drain", "")?;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! pre_stop {
    ($hook:path) => {
        $crate::__hook! {
            pre_stop, __type_of_pre_stop, __export_tagfall_hooks_pre_stop_0_1_0_cabi,
            run() -> (),
            plain, $hook, ()
        }
    };
}

/// Makes a function the hook `post-stop`.
///
/// After the last process of a service is gone. Once; again only where the call itself was cut off, which `call.attempt` tells.
///
/// It is also handed how the main process ended.
///
/// ```no_run
/// use tagfall_hooks::prelude::*;
///
/// tagfall_hooks::post_stop!(clean);
///
/// fn clean(call: &Call, exit: &ExitStatus) -> Result<()> {
///     log::info(format!("{} {exit}", call.service));
///     files::remove("/run/web/pid")
/// }
/// ```
#[macro_export]
macro_rules! post_stop {
    ($hook:path) => {
        $crate::__hook! {
            post_stop, __type_of_post_stop, __export_tagfall_hooks_post_stop_0_1_0_cabi,
            run(exit: $crate::__private::ExitStatus) -> (),
            plain, $hook, (&$crate::__private::exit(exit))
        }
    };
}
