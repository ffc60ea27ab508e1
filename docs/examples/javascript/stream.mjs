/** The direct stream from a worker (section 11): pinned TLS, frames, and going on where it broke. */
import dns from "node:dns/promises";
import http from "node:http";
import { isIP } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { seal, sha256 } from "./envelope.mjs";
import { isPrivate } from "./link.mjs";
import { decode, encode } from "./msgpack.mjs";
import { need, Refusal } from "./refusal.mjs";

const MAX_FRAME = 1 << 20;
const SILENCE_MS = 10_000; // a worker sends a frame each 3 s, if only to say that it is there
const CONNECT_MS = 4_000;
// Openings in a row that bring nothing new. The first one has to be found out while the tracker waits for it to happen.
const TRIES = 5;
const FIRST_TRIES = 2;
const EMPTY = Buffer.alloc(0);

const number = (value) => Number.isSafeInteger(value) && value >= 0;
const text = (value) => typeof value === "string";
const bytes = Buffer.isBuffer;
// By kind: the names of the elements, and what they have to be.
const FRAMES = {
  __proto__: null,
  text: { number, text },
  start: { number, media_type: text, size: number },
  chunk: { number, content: bytes },
  final: { number, salt: (value) => bytes(value) && value.length === 32, finish: text, receipt: bytes },
  progress: { done: number, total: number },
  preview: { jpeg: bytes },
  failed: { code: text, text },
  alive: {},
};

/** One frame, without the length before it. */
export function readFrame(encoded) {
  const parts = decode(encoded);
  const shape = Array.isArray(parts) && text(parts[0]) && FRAMES[parts[0]];
  need(shape, "malformed", "a frame of no known kind");
  const frame = { kind: parts[0] };
  for (const [i, [name, holds]] of Object.entries(shape).entries()) {
    need(holds(parts[i + 1]), "malformed", `a frame ${frame.kind} without a right ${name}`);
    frame[name] = parts[i + 1];
  }
  return frame;
}

/** The frames in a stream of bytes, each as soon as it is there. */
export async function* readFrames(chunks) {
  let buffer = EMPTY;
  for await (const chunk of chunks) {
    buffer = Buffer.concat([buffer, chunk]);
    while (buffer.length >= 4) {
      const length = buffer.readUInt32BE(0);
      need(length <= MAX_FRAME, "too_large", `a frame of ${length} bytes`);
      if (buffer.length < 4 + length) break;
      yield readFrame(buffer.subarray(4, 4 + length));
      buffer = buffer.subarray(4 + length);
    }
  }
}

/** The addresses behind `host:port` that may be used: a worker must not lead people into their own network. */
async function resolve(address, near) {
  const [, host, port] = /^\[?(.+?)\]?:(\d+)$/.exec(address) ?? [];
  need(host, "no_connection", `${address} is not host:port`);
  const found = isIP(host) ? [host] : (await dns.lookup(host, { all: true })).map((entry) => entry.address);
  const usable = near ? found : found.filter((ip) => !isPrivate(ip));
  need(usable.length, "no_connection", `${address} is in a private network, and the horde is not`);
  return usable.map((ip) => ({ host: ip, port: Number(port) }));
}

/** A TLS connection to exactly the certificate of the peer record; nothing was said over it yet. */
function connect({ host, port }, certificate, signal) {
  return new Promise((resolve, reject) => {
    // Names, dates and issuers say nothing here. The digest that the worker signed says all.
    const socket = tls.connect({ host, port, rejectUnauthorized: false, minVersion: "TLSv1.3" });
    const stop = () => socket.destroy(new Error("stopped"));
    signal.addEventListener("abort", stop, { once: true });
    socket.on("close", () => signal.removeEventListener("abort", stop));
    socket.setTimeout(CONNECT_MS);
    socket.on("timeout", () => socket.destroy(new Error("nothing came from the worker for too long")));
    socket.on("error", reject);
    socket.on("secureConnect", () => {
      socket.setTimeout(SILENCE_MS);
      if (sha256(socket.getPeerCertificate().raw).equals(certificate)) resolve(socket);
      else {
        socket.destroy();
        reject(new Refusal("wrong_certificate", `${host}:${port} shows not the certificate of its peer record`));
      }
    });
  });
}

async function connectAny(record, near, signal) {
  let last = new Refusal("no_connection", "the peer record names no address");
  for (const address of record.addresses) {
    try {
      for (const place of await resolve(address, near)) return await connect(place, record.certificate, signal);
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** Open a stream at the frame that is due. The response, whose body is frames; else the worker's refusal. */
async function open({ lease, next, handed, privatePart, prefix }, { record, near, root, jobKey, signal }) {
  const socket = await connectAny(record, near, signal);
  const { job, attempt } = lease.body;
  const opening = seal("opening", jobKey, root,
    { job, attempt, certificate: record.certificate, lease: lease.bytes });
  const body = encode(handed ? [opening] : [opening, privatePart, prefix]);
  const response = await new Promise((resolve, reject) => {
    const path = next === 0 ? "/stream" : `/stream?after=${next - 1}`;
    const request = http.request({ method: "POST", path, createConnection: () => socket, host: record.addresses[0],
      headers: { Host: "worker", "Content-Type": "application/octet-stream", "Content-Length": body.length } });
    request.on("response", resolve);
    request.on("error", reject);
    request.end(body);
  });
  if (response.statusCode === 200) return response;
  for await (const frame of readFrames(response))
    if (frame.kind === "failed") throw Object.assign(new Refusal(frame.code, frame.text), { answered: true });
  throw new Error(`HTTP ${response.statusCode} without a reason`);
}

/**
 * All frames of one attempt, each numbered one once, however often the connection breaks; ends after `final` or
 * `failed`. A frame of kind `anew` comes first where the worker cannot go on from the prefix. Throws a Refusal when
 * this worker is to be given up; its code is the reason for `unreachable`.
 *
 * The attempt is {lease, privatePart, prefix}, and is changed: `next` is the number of the frame that is due, and
 * `handed` says that an opening with the private part was taken. So another call goes on where this one stopped.
 * `way` is {record, near, root, jobKey, signal}: how to get there.
 */
export async function* follow(attempt, way) {
  attempt.next ??= 0;
  for (let tries = 0; ; ) {
    try {
      const response = await open(attempt, way);
      attempt.handed = true;
      for await (const frame of readFrames(response)) {
        if (way.signal.aborted) return;
        if ("number" in frame) {
          if (frame.number !== attempt.next) throw new Error(`frame ${frame.number}, where ${attempt.next} was due`);
          attempt.next += 1;
          tries = 0;
        }
        yield frame;
        if (frame.kind === "final" || frame.kind === "failed") return response.destroy();
      }
      throw new Error("the stream ended before its last frame");
    } catch (error) {
      if (way.signal.aborted) return;
      if (error.code === "prefix_unsupported" && attempt.prefix) {
        attempt.prefix = "";
        yield { kind: "anew" };
        continue;
      }
      if (error.code === "private_part_missing" && attempt.handed) attempt.handed = false;
      else if (error.answered && error.code !== "busy") throw error; // the same again would be answered the same
      tries += 1;
      if (tries >= (attempt.handed ? TRIES : FIRST_TRIES))
        throw error instanceof Refusal ? error : new Refusal("no_connection", error.message);
      await sleep(Math.random() * 500 * 2 ** (tries - 1), undefined, { signal: way.signal }).catch(() => {});
    }
  }
}
