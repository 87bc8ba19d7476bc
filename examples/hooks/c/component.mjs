// Makes a component of a core module: node component.mjs MODULE OUT
//
// MODULE is WebAssembly or its text (.wat); the world is `hook` of wit/world.wit. `wasm-tools component embed` and
// `wasm-tools component new` do the same.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const tools = await import(createRequire(import.meta.url).resolve("@bytecodealliance/jco-transpile/wasm-tools"));
const [module, out] = process.argv.slice(2);
const wit = join(dirname(fileURLToPath(import.meta.url)), "wit");

// The packages of wit/deps, each as a nested package behind the world: one text instead of many files.
const nested = readdirSync(join(wit, "deps")).map((name) => {
  const folder = join(wit, "deps", name);
  const files = readdirSync(folder).filter((file) => file.endsWith(".wit"));
  const texts = files.map((file) => readFileSync(join(folder, file), "utf8"));
  const [head] = texts.join("\n").match(/^package [^;]+(?=;)/m);
  return `${head} {\n${texts.join("\n").replace(/^package [^;]+;/m, "")}\n}\n`;
});
const witSource = readFileSync(join(wit, "world.wit"), "utf8") + nested.join("\n");

const binary = module.endsWith(".wat") ? await tools.parse(readFileSync(module, "utf8")) : readFileSync(module);
const typed = await tools.componentEmbed({ binary, witSource, world: "hook" });
writeFileSync(out, await tools.componentNew(typed));
