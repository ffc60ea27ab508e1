/** Envelopes (section 5) and digests (section 10). */
import { createHash } from "node:crypto";
import { readBody, SHAPES } from "./bodies.mjs";
import { checkSignature } from "./keys.mjs";
import { decode, encode } from "./msgpack.mjs";
import { need } from "./refusal.mjs";

export const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

/** Bytes behind their length. */
function behindLength(bytes) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The bytes that are signed. */
export const signedBytes = ({ kind, key, context, body }) =>
  Buffer.concat([Buffer.from("potluck/1"), Buffer.from(kind), key, context, body].map(behindLength));

/** The name by which documents refer to an envelope. */
export const digestOf = (envelope) => sha256(signedBytes(envelope));

/** A signed envelope as it travels. A document's context is the root key alone. */
export function seal(kind, key, context, fields) {
  const body = encode(fields);
  const signature = key.sign(signedBytes({ kind, key: key.public, context, body }));
  return encode([1, kind, key.public, context, body, signature]);
}

/** The context of a session message. */
export function sessionContext(root, session, number) {
  const counted = Buffer.alloc(8);
  counted.writeBigUInt64BE(BigInt(number));
  return Buffer.concat([root, session, counted]);
}

/** The parts of an envelope. Nothing in them is to be believed before its signature was checked. */
export function readEnvelope(bytes) {
  const parts = decode(bytes);
  need(Array.isArray(parts) && Number.isInteger(parts[0]), "malformed", "an envelope is an array behind a version");
  need(parts[0] === 1, "unknown_version", `version ${parts[0]} of the protocol; this program knows version 1`);
  const [, kind, key, context, body, signature] = parts;
  need(parts.length === 6 && typeof kind === "string", "malformed", "an envelope is an array of six");
  need([key, context, body, signature].every(Buffer.isBuffer), "malformed", "an envelope with parts of other types");
  need(key.length === 32 && signature.length === 64, "malformed", "a key or signature of another length");
  need([32, 56].includes(context.length), "malformed", `a context of ${context.length} bytes`);
  return { kind, key, context, body, signature, bytes };
}

/** The envelope with its body read, if it is a document of this horde that the wanted key (or, without, any) signed. */
export function checkDocument(envelope, root, wanted) {
  need(envelope.context.length === 32, "unknown_kind", `${envelope.kind} came as a session message`);
  need(envelope.context.equals(root), "wrong_horde", `a ${envelope.kind} of another horde`);
  return checkSigned(envelope, "document", wanted);
}

/** The envelope with its body read, if it is this message of the session of the wanted key. */
export function checkMessage(envelope, root, session, number, wanted) {
  const { context } = envelope;
  need(context.length === 56, "unknown_kind", `${envelope.kind} came as a document`);
  need(context.subarray(0, 32).equals(root), "wrong_horde", "a message of another horde");
  need(context.subarray(32, 48).equals(session), "wrong_session", "a message of another session");
  const found = context.readBigUInt64BE(48);
  need(found === BigInt(number), "out_of_sequence", `message ${found} came where ${number} was due`);
  return checkSigned(envelope, "message", wanted);
}

function checkSigned(envelope, family, wanted) {
  const { kind, key } = envelope;
  need(!wanted || [wanted].flat().some((one) => key.equals(one)), "wrong_signer",
    `a ${kind} by another key than the one that has a say in it`);
  checkSignature(key, signedBytes(envelope), envelope.signature);
  const shape = SHAPES[family][kind];
  need(shape, "unknown_kind", `a ${family} of kind ${kind}, which a requester does not know`);
  need(envelope.bytes.length <= shape.cap, "too_large", `a ${kind} of ${envelope.bytes.length} bytes`);
  return { ...envelope, body: readBody(shape.fields, decode(envelope.body), kind), digest: digestOf(envelope) };
}

/** Binds a private part. */
export const privateDigest = (bytes) => sha256("potluck/1 private\0", bytes);

/** Binds what an attempt made: pairs of media type and content, in their order. */
export const outputDigest = (salt, artifacts) =>
  sha256(encode([salt, artifacts.map(([type, content]) => [type, content.length, sha256(content)])]));
