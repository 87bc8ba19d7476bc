// The hook `@HOOK@`: wit/deps/tagfall-hooks/hooks.wit says when it is called.

import { log } from "tagfall:hooks/log@0.1.0";
import { get } from "tagfall:hooks/config@0.1.0";

// The exported object has the name of the interface in wit/world.wit; Tagfall calls its function.
export const @OBJECT@ = {
  @METHOD@(@PARAMETERS@) {
    const args = JSON.parse(ctx.argsJson);
    log("info", `${ctx.reason}: args ${JSON.stringify(args)}, port ${get("/cfg/port")}`, []);
    // What cannot be done is thrown: { code: "not-yet", message: "one sentence" }. Anything else that is thrown is a trap.
    return @ANSWER@;
  },
};
