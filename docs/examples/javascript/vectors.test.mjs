/** The golden vectors of the standard (section 18), as far as a requester of texts goes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readBody, SHAPES } from "./bodies.mjs";
import {
  checkMessage, digestOf, outputDigest, privateDigest, readEnvelope, seal, sha256, signedBytes,
} from "./envelope.mjs";
import { checkKey, checkSignature, keyFromText, keyPair, keyToText } from "./keys.mjs";
import { isPrivate, parseLink } from "./link.mjs";
import { decode, encode } from "./msgpack.mjs";
import { need } from "./refusal.mjs";
import { checkChallenge, checkDelegation } from "./session.mjs";
import { readFrame, readFrames } from "./stream.mjs";

// The folder of the vectors, if this one was copied to another place.
const FOLDER = process.env.POTLUCK_VECTORS ?? new URL("../../../tests/protocol/vectors/", import.meta.url).pathname;
const vectors = (name) => JSON.parse(readFileSync(`${FOLDER}/${name}.json`, "utf8"));
const bytes = (hex) => Buffer.from(hex, "hex");

/** The code with which a call is refused, null if it is not. */
function codeOf(call) {
  try {
    call();
    return null;
  } catch (error) {
    assert.ok(error.code, error.stack);
    return error.code;
  }
}

/** A decoded value in the way the vectors write it. */
function plain(value) {
  if (Buffer.isBuffer(value)) return { hex: value.toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
}

/** What the vectors write, as values to encode. */
function real(value) {
  if (Array.isArray(value)) return value.map(real);
  if (typeof value !== "object" || value === null) return value;
  if (typeof value.hex === "string") return bytes(value.hex);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, real(inner)]));
}

test("keys are made, shown, read and refused alike", () => {
  const { valid, refused, refused_shown: refusedShown } = vectors("keys");
  for (const { seed, public: key, shown } of valid) {
    assert.equal(keyPair(bytes(seed)).public.toString("hex"), key);
    assert.equal(keyToText(bytes(key)), shown);
    assert.equal(keyFromText(shown).toString("hex"), key);
  }
  for (const { public: key, why } of refused) assert.equal(codeOf(() => checkKey(bytes(key))), "bad_key", why);
  for (const text of refusedShown) assert.equal(codeOf(() => keyFromText(text)), "bad_key", text);
});

test("every auditor gives the same answer to a signature", () => {
  for (const { key, message, signature, code, why } of vectors("keys").signatures)
    assert.equal(codeOf(() => checkSignature(bytes(key), bytes(message), bytes(signature))), code, why);
});

test("links are read and refused alike", () => {
  const { valid, refused } = vectors("links");
  for (const { link, url, root, name, certificate, members, needs_insecure: insecure } of valid) {
    const found = parseLink(link);
    assert.deepEqual([found.url, found.root.toString("hex"), found.name], [url, root, name]);
    assert.equal(found.certificate?.toString("hex") ?? "", certificate);
    assert.equal(found.members, members);
    assert.equal(!found.near && found.url.startsWith("ws:"), insecure);
  }
  for (const link of refused) assert.ok(codeOf(() => parseLink(link)), link);
});

test("msgpack is as strict as the standard", () => {
  for (const { case: name, encoded, code } of vectors("strictness"))
    assert.equal(codeOf(() => decode(bytes(encoded))), code, name);
});

test("envelopes are signed, named and spelt alike", () => {
  for (const row of vectors("envelopes").envelopes) {
    const key = keyPair(bytes(row.seed));
    const parts = { kind: row.kind, key: bytes(row.key), context: bytes(row.context), body: bytes(row.body) };
    assert.equal(signedBytes(parts).toString("hex"), row.signed_bytes);
    assert.equal(key.sign(signedBytes(parts)).toString("hex"), row.signature);
    assert.equal(digestOf(parts).toString("hex"), row.digest);
    assert.equal(seal(row.kind, key, parts.context, decode(parts.body)).toString("hex"), row.envelope);
    assert.deepEqual(readEnvelope(bytes(row.envelope)).signature, bytes(row.signature));
  }
});

test("a receiver stops at the first check that fails", () => {
  const { receiver, received } = vectors("envelopes");
  // What a requester is never told it does not know: so the checks up to the body, with the body of its own messages.
  const known = { ask_account: { cap: 16_384, fields: {} } };
  Object.assign(SHAPES.message, known);
  for (const { case: name, envelope, code } of received) {
    const answer = codeOf(() => {
      need(envelope.length / 2 <= receiver.limit, "too_large", "more than a session may begin with");
      checkMessage(readEnvelope(bytes(envelope)), bytes(receiver.root), bytes(receiver.session), receiver.next,
        bytes(receiver.key));
    });
    assert.equal(answer, code, name);
  }
  delete SHAPES.message.ask_account;
});

test("a challenge and a delegation hold, and for their own horde only", () => {
  const { challenge, delegation } = vectors("envelopes");
  const root = bytes(delegation.root);
  const found = checkChallenge(bytes(challenge.encoded), root, challenge.fields.clock);
  assert.equal(found.session.toString("hex"), challenge.fields.session.hex);
  assert.equal(codeOf(() => checkChallenge(bytes(challenge.encoded), sha256("another"), 0)), "wrong_horde");
  const held = checkDelegation(bytes(delegation.envelope), root, 0);
  assert.equal(codeOf(() => checkDelegation(bytes(delegation.envelope), root, 0, held)), null);
  const newer = { ...held, body: { ...held.body, version: held.body.version + 1 } };
  assert.equal(codeOf(() => checkDelegation(bytes(delegation.envelope), root, 0, newer)), "bad_delegation");
});

test("the serving key vouches for the certificate in the link, and for no other", () => {
  const { challenge } = vectors("envelopes");
  const root = bytes(challenge.fields.root.hex);
  const certificate = bytes(challenge.certificate);
  const code = (wanted) => codeOf(() => checkChallenge(bytes(challenge.encoded), root, 0, undefined, wanted));
  assert.deepEqual([code(null), code(certificate), code(sha256("other"))], [null, null, "wrong_certificate"]);
});

test("bodies that a requester reads have the fields of the vectors", () => {
  let read = 0;
  for (const { kind, family, fields, encoded } of vectors("bodies")) {
    const shape = SHAPES[family === "session" ? "message" : family]?.[kind];
    if (!shape) continue;
    read += 1;
    const body = plain(readBody(shape.fields, decode(bytes(encoded)), kind));
    delete fields.public?.work; // of a picture in one row, and this requester knows texts
    assert.deepEqual(pick(body, fields), fields, kind);
  }
  assert.equal(read, 30);
});

/** The part of a body that the vector names, maps within included: fields at their default are left out there. */
function pick(body, fields) {
  if (Array.isArray(body)) return body.map((item, i) => pick(item, fields[i]));
  if (typeof body !== "object" || body === null || "hex" in body) return body;
  return Object.fromEntries(Object.keys(fields).map((name) => [name, pick(body[name], fields[name])]));
}

test("bodies of another shape are refused", () => {
  for (const { kind, case: name, encoded, code } of vectors("refusals").bodies) {
    const shape = SHAPES.message[kind] ?? SHAPES.document[kind];
    if (!shape) continue;
    assert.equal(codeOf(() => readBody(shape.fields, decode(bytes(encoded)), kind)), code, `${kind} ${name}`);
  }
});

test("bodies that a requester writes are spelt as in the vectors", () => {
  const written = ["hello", "holding", "private", "unreachable", "request", "cancel", "opening", "acknowledgement",
    "denial", "private part"];
  for (const { kind, fields, encoded } of vectors("bodies"))
    if (written.includes(kind)) assert.deepEqual(plain(decode(bytes(encoded))), plain(decode(encode(real(fields)))));
});

test("digests are alike", () => {
  const { private: privates, output } = vectors("digests");
  for (const row of privates) assert.equal(privateDigest(bytes(row.private)).toString("hex"), row.digest);
  for (const { salt, artifacts, encoded, digest } of output) {
    const listed = artifacts.map(([type, size, hash]) => [type, size, bytes(hash)]);
    assert.equal(encode([bytes(salt), listed]).toString("hex"), encoded);
    assert.equal(sha256(bytes(encoded)).toString("hex"), digest);
  }
  const pictured = output.find((row) => row.artifacts.length === 1 && row.artifacts[0][0] === "image/png");
  assert.equal(outputDigest(bytes(pictured.salt), [["image/png", Buffer.from("a picture")]]).toString("hex"),
    pictured.digest);
});

test("frames are read alike, in whatever pieces they come", async () => {
  const { frames, refused } = vectors("stream");
  const read = async (chunks) => {
    const found = [];
    for await (const frame of readFrames(chunks)) found.push(plain(Object.values(frame)));
    return found;
  };
  const wanted = frames.map(({ kind, elements }) => [kind, ...elements]);
  const stream = Buffer.concat(frames.map(({ encoded }) => bytes(encoded)));
  assert.deepEqual(await read([stream]), wanted);
  assert.deepEqual(await read(Array.from(stream, (byte) => Buffer.from([byte]))), wanted);
  assert.equal(codeOf(() => readFrame(encode(["text", 1.5, ""]))), "malformed");
  for (const { case: name, encoded, code } of refused)
    await assert.rejects(read([bytes(encoded)]), (error) => error.code === code, name);
});

test("an opening is spelt as in the vectors", () => {
  for (const { elements, encoded } of vectors("stream").openings)
    assert.equal(encode(real(elements)).toString("hex"), encoded);
});

test("private networks are told from those that everybody reaches", () => {
  const near = ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.1.1", "0.0.0.0", "::1", "::", "fd00::1",
    "fe80::1", "::ffff:10.1.2.3", "[::1]"];
  const far = ["8.8.8.8", "172.32.0.1", "11.0.0.1", "2606:4700::1", "::ffff:8.8.8.8", "horde.example", "10.example"];
  assert.deepEqual(near.filter((host) => !isPrivate(host)), []);
  assert.deepEqual(far.filter(isPrivate), []);
});
