/** Ask a horde for a text: node requester.mjs LINK PROMPT [options]. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Job } from "./job.mjs";
import { parseLink } from "./link.mjs";
import { need, Refusal, shown } from "./refusal.mjs";

const USAGE = `usage: node requester.mjs LINK PROMPT [options]
  LINK               potluck:?tr=...&id=...
  PROMPT             what to ask; - reads it from standard input
  --model NAME       this model only; without it, any that makes texts
  --max-tokens N     at most so many tokens (256)
  --context N        room for prompt and answer together, in tokens (2048; 1024 beyond --max-tokens if that is more)
  --json             a last line of JSON: the content, and what proves it
  --insecure         use ws:// outside of private networks too`;

function read() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      model: { type: "string" },
      "max-tokens": { type: "string", default: "256" },
      context: { type: "string" },
      json: { type: "boolean", default: false },
      insecure: { type: "boolean", default: false },
    },
  });
  const whole = (name, least, most) => {
    const number = Number(values[name]);
    if (Number.isInteger(number) && number >= least && number <= most) return number;
    throw new TypeError(`--${name} takes a whole number from ${least} to ${most}, not ${values[name]}`);
  };
  if (positionals.length !== 2) throw new TypeError("wanted a link and a prompt");
  const [link, prompt] = positionals;
  const maxTokens = whole("max-tokens", 1, 32_768);
  values.context ??= Math.max(2048, maxTokens + 1024);
  const ask = { prompt: prompt === "-" ? readFileSync(0, "utf8") : prompt, model: values.model, maxTokens,
    contextTokens: whole("context", 16, 1_048_576) };
  if (!ask.prompt) throw new TypeError("the prompt is empty");
  return { link, ask, json: values.json, insecure: values.insecure };
}

async function main() {
  let options;
  try {
    options = read();
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    return 2;
  }
  try {
    const link = parseLink(options.link);
    need(link.near || link.url.startsWith("wss:") || options.insecure, "refused",
      "ws:// outside of private networks lets everybody in between read along; use wss:// or --insecure");
    let within = false; // a line of text, on a terminal that shows both outputs
    const print = (text) => {
      within = process.stdout.isTTY;
      process.stdout.write(within ? shown(text) : text);
    };
    const tell = (text) => {
      console.error(`${within ? "\n" : ""}- ${text}`);
      within = false;
    };
    if (link.members) tell("by its link this horde serves members only, and this program asks without an account");
    const job = new Job(link, options.ask, print, tell);
    process.on("SIGINT", () => (job.cancelled ? process.exit(130) : job.cancel()));
    const result = await job.run();
    tell(`settled: ${JSON.stringify(result.settled)}`);
    console.log(options.json ? `\n${JSON.stringify(result)}` : "");
    return 0;
  } catch (error) {
    if (!(error instanceof Refusal) && error.name !== "Error") throw error; // a fault of this program
    console.error(`\n${error.code ?? "error"}: ${shown(error.message)}`);
    return 1;
  }
}

// Not process.exit(): what was printed into a pipe has to arrive first.
process.exitCode = await main();
