"""The hook `@HOOK@`: wit/deps/tagfall-hooks/hooks.wit says when it is called."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, log, types


class @CLASS@(exports.@CLASS@):
    """The class has the name of the interface in wit/world.wit; Tagfall calls its method."""

    def @METHOD@(self, @PARAMETERS@):
        try:
            return @FUNCTION@(@PARAMETERS@)
        except Err:
            raise
        except Exception as error:
            # What nobody catches is a trap, and its words are lost.
            raise Err(types.Failure("bug", f"{type(error).__name__}: {error}", None))


def @FUNCTION@(@PARAMETERS@):
    args = json.loads(ctx.args_json)
    port = config.get("/cfg/port")
    log.log(log.Level.INFO, f"{ctx.reason}: args {args}, port {port}", [])
    # What cannot be done is raised: Err(types.Failure("not-yet", "one sentence", None)).
    return @ANSWER@
