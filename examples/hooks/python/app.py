"""A health check: asks a web server for a page and judges the answer.

`args` in group.toml: `url` is the page, `contains` a text that must be on it, `slow_ms` when an answer is too slow to be well.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log, probe
from wit_world.imports.types import Context, Failure, Health, Report


class HealthCheck(exports.HealthCheck):
    """The class has the name of the interface in wit/world.wit; Tagfall calls its method."""

    def check(self, ctx: Context) -> Report:
        try:
            return judge(json.loads(ctx.args_json), ctx)
        except Err:
            raise
        except Exception as error:
            # What nobody catches is a trap, and its words are lost.
            raise Err(Failure("bug", f"{type(error).__name__}: {error}", None))


def judge(args: dict, ctx: Context) -> Report:
    if "url" not in args:
        # A failure counts as `unknown`: the check could not do its work.
        raise Err(Failure("no-url", "`args` needs `url`, the page to ask for", None))
    url = args["url"]
    try:
        answer = probe.http(probe.Request("GET", url, [], None, 0))
    except Err as error:
        # `denied` says which line group.toml needs; pass its message on as it is.
        return report(Health.CRITICAL, error.value.message)
    took_ms = answer.elapsed_us / 1000
    log.log(log.Level.DEBUG, f"{ctx.group}: {answer.status}", [("took_ms", f"{took_ms:.1f}")])
    if answer.status != 200:
        return report(Health.CRITICAL, f"{url} answers {answer.status}")
    if args.get("contains", "") not in answer.body.decode("utf-8", "replace"):
        return report(Health.CRITICAL, f"{url} does not contain {args['contains']!r}")
    if took_ms > args.get("slow_ms", 1000):
        return report(Health.WARNING, f"{url} took {took_ms:.0f} ms")
    return report(Health.OK, f"{url} answers {answer.status}")


def report(health: Health, message: str) -> Report:
    return Report(health, message, None, [])
