/** The bodies that a requester reads, as the tables of sections 6 to 9 give them. */
import { need } from "./refusal.mjs";

const KIB = 1024;

// A check takes a value and where it stands, and returns the value, or refuses with bad_body.
const check = (holds, wanted) => (value, where) => {
  need(holds(value), "bad_body", `${where}: wanted ${wanted}`);
  return value;
};
const isInteger = (value) => Number.isSafeInteger(value) || typeof value === "bigint";
const int = (least = -Infinity, most = Infinity) =>
  check((value) => isInteger(value) && value >= least && value <= most, `an integer from ${least} to ${most}`);
const bytes = (length) =>
  check((value) => Buffer.isBuffer(value) && (length ?? value.length) === value.length, `${length ?? "some"} bytes`);
const text = (most = Infinity, least = 0) =>
  check((value) => typeof value === "string" && [...value].length <= most && [...value].length >= least, "text");
const either = (...values) => check((value) => values.includes(value), `one of ${values.join(", ")}`);
const list = (item, most = Infinity) => (value, where) => {
  need(Array.isArray(value) && value.length <= most, "bad_body", `${where}: wanted an array of at most ${most}`);
  return value.map((element, i) => item(element, `${where}[${i}]`));
};
const map = (fields) => (value, where) => readBody(fields, value, where);

// A field of a shape is its check, or the check and the default.
const count = int(0);
const counted = [count, 0];
const key = bytes(32);
const digest = bytes(32);
const handle = bytes(16);
const envelope = bytes();
const code = text(40, 1);
const forPeople = [text(2000), ""];
const flag = [either(true, false), false];
const none = Buffer.alloc(0);

/** The known fields of a decoded body, each checked, or at its default; others are ignored. */
export function readBody(fields, body, where) {
  need(typeof body === "object" && body !== null && !Array.isArray(body) && !Buffer.isBuffer(body), "bad_body",
    `${where}: wanted a map`);
  const read = {};
  for (const [name, field] of Object.entries(fields)) {
    const [inner, missing] = Array.isArray(field) ? field : [field];
    need(name in body || missing !== undefined, "bad_body", `${where}.${name} is missing`);
    read[name] = name in body ? inner(body[name], `${where}.${name}`) : missing;
  }
  return read;
}

const held = map({ kind: code, job: handle, attempt: counted, digest, progress: counted });
const former = map({ key, entries: count });
const asker = map({ anonymous: flag, service: [text(60), ""], give_back: [int(0, 3), 0], own: flag,
  pseudonym: [bytes(), none] });
const publicPart = map({
  work: map({ kind: either("text", "image"), max_tokens: [int(1, 32_768), 256],
    context_tokens: [int(16, 1_048_576), 2048] }),
  models: [list(text(120, 1), 32), []], n: [int(1, 64), 1], share: flag, flags: [list(code, 16), []],
  max_price: counted,
});

export const CHALLENGE = { root: key, delegation: envelope, session: bytes(16), clock: int(),
  shown: [envelope, none] };

const message = {
  holding: { cap: 64 * KIB, fields: { entries: list(held, 256), last: either(true, false) } },
  welcome: { fields: { clock: int(), rules: digest, rules_version: int(1), account: counted } },
  refused: { fields: { code, text: text(2000), about: [bytes(), none], final: flag } },
  queued: { fields: { request: digest, jobs: list(handle), held: count } },
  position: { fields: { job: handle, ahead: count, workers: count, wait: counted } },
  requeued: { fields: { job: handle, attempt: int(1), reason: code, text: forPeople } },
  ended: { fields: { job: handle, attempt: counted, state: either("refunded", "cancelled", "expired", "failed"),
    reason: [text(40), ""], text: forPeople, released: counted } },
};

const document = {
  serving: { cap: 4 * KIB, fields: { serving: key, version: int(1), expires: [int(), 0],
    epoch: counted, former: [list(former, 32), []] } },
  shown: { cap: 4 * KIB, fields: { digest } },
  lease: { fields: { job: handle, attempt: int(1), worker: key, model: text(120, 1), public: publicPart, index: count,
    private_digest: digest, job_key: key, asker, issued: int(), deadline: int(), rules: int(1), price: count,
    paid: count, free: count, owners: counted, labels: [list(text(40, 1), 16), []] } },
  peer_record: { cap: 4 * KIB, fields: { version: int(1), certificate: digest, addresses: list(text(260, 3), 16) } },
  receipt: { cap: 4 * KIB, fields: { job: handle, attempt: int(1), output_digest: digest, used: count,
    context_used: counted, partial: flag, engine: text(300, 1), finished: int() } },
  settlement: { cap: 4 * KIB, fields: { job: handle, attempt: int(1), paid: count, minted: count, burned: count,
    withheld: counted, partial: flag, number: int(1), entry: count, leaf: digest, checkpoint: envelope, settled: int() } },
  checkpoint: { cap: 4 * KIB, fields: { size: count, root: digest, time: int(), epoch: counted } },
  rules: { cap: 256 * KIB, fields: { version: int(1), issued: int(), rules: text(), previous: [bytes(), none] } },
};

const withCap = (shapes) =>
  Object.assign(Object.create(null), Object.fromEntries(Object.entries(shapes).map(([kind, shape]) =>
    [kind, { cap: 16 * KIB, ...shape }])));

/** By family and kind: the most bytes of the whole envelope, and the fields of the body. */
export const SHAPES = { message: withCap(message), document: withCap(document) };
