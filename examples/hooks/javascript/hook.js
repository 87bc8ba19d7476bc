// Two hooks for Redis in one module: a health check, and a reconfiguration that needs no restart.
//
// `args` in group.toml: `host` and `port` say where Redis listens.

import { log } from "tagfall:hooks/log@0.1.0";
import { get } from "tagfall:hooks/config@0.1.0";
import { tcp } from "tagfall:hooks/probe@0.1.0";

// QuickJS has no TextEncoder; what Redis speaks is ASCII.
const bytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const text = (bytes) => String.fromCharCode(...bytes);

// One command and the `wanted` first bytes of its answer.
function redis(ctx, command, wanted) {
  const { host = "127.0.0.1", port = 6379 } = JSON.parse(ctx.argsJson);
  return text(tcp(host, Number(port), bytes(command + "\r\n"), wanted, 0));
}

const report = (health, message) => ({ health, message, extra: [] });
const outcome = (tag, message, val) => ({ action: { tag, val }, message, extra: [] });

// What is thrown ends the call: as a failure where it is { code, message }. Anything else would be a trap, and its words lost.
const telling = (run) => (...parameters) => {
  try {
    return run(...parameters);
  } catch (error) {
    throw error.payload ?? (error.code ? error : { code: "bug", message: String(error) });
  }
};

// Each exported object has the name of an interface in wit/world.wit.
export const healthCheck = {
  check: telling((ctx) => {
    let answer;
    try {
      answer = redis(ctx, "PING", 7);
    } catch (error) {
      // `denied` says which line group.toml needs; pass its message on as it is.
      return report("critical", error.payload?.message ?? String(error));
    }
    if (answer.startsWith("+PONG")) return report("ok", "Redis answers PONG");
    // It says so itself while it reads its data from disk.
    if (answer.startsWith("-LOADIN")) return report("warning", "Redis is still loading its data");
    return report("critical", `Redis answers ${JSON.stringify(answer)}`);
  }),
};

export const reconfigure = {
  run: telling((ctx, changed) => {
    if (changed.some((name) => name !== "redis.conf")) return outcome("restart", "more than redis.conf has changed");
    const limit = get("/cfg/maxmemory");
    if (limit === undefined) return outcome("restart", "there is no `maxmemory` in the configuration");
    const answer = redis(ctx, `CONFIG SET maxmemory ${JSON.parse(limit)}`, 5);
    if (!answer.startsWith("+OK")) return outcome("restart", `Redis would not take it: ${answer.trim()}`);
    log("info", "maxmemory was set in the running server", [["maxmemory", limit]]);
    return outcome("done", "maxmemory was set without a restart");
  }),
};
