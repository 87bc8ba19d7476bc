// The hook `@HOOK@`: wit/deps/tagfall-hooks/hooks.wit says when it is called.

import { log } from "tagfall:hooks/log@0.1.0";
import { get } from "tagfall:hooks/config@0.1.0";

// What is thrown ends the call: as a failure where it is { code, message }. Anything else would be a trap, and its words lost.
const telling = (run) => (...parameters) => {
  try {
    return run(...parameters);
  } catch (error) {
    throw error.payload ?? (error.code ? error : { code: "bug", message: String(error) });
  }
};

// The exported object has the name of the interface in wit/world.wit; Tagfall calls its function.
export const @OBJECT@ = {
  @METHOD@: telling((@PARAMETERS@) => {
    const args = JSON.parse(ctx.argsJson);
    log("info", `${ctx.reason}: args ${JSON.stringify(args)}, port ${get("/cfg/port")}`, []);
    return @ANSWER@;
  }),
};
