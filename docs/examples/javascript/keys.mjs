/** Ed25519 keys and signatures (section 2), by node:crypto. */
import * as crypto from "node:crypto";
import { need } from "./refusal.mjs";

const P = (1n << 255n) - 19n;
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex"); // what stands before a seed in DER
const LETTERS = "abcdefghijklmnopqrstuvwxyz234567";
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/** The y of a point, as hex: its 32 bytes without the sign bit of x. */
function yOf(point) {
  const y = Buffer.from(point);
  y[31] &= 0x7f;
  return y;
}

const isSmall = (point) => SMALL_ORDER.has(yOf(point).toString("hex"));

/** A key pair: a fresh one, or that of a seed. */
export function keyPair(seed = crypto.randomBytes(32)) {
  const secret = crypto.createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: "der", type: "pkcs8" });
  const { x } = crypto.createPublicKey(secret).export({ format: "jwk" });
  return { public: Buffer.from(x, "base64url"), sign: (message) => crypto.sign(null, message, secret) };
}

/** Refuses what is no key that may be used. */
export function checkKey(key) {
  need(key.length === 32, "bad_key", `a key has 32 bytes, not ${key.length}`);
  need(BigInt(`0x${yOf(key).reverse().toString("hex")}`) < P, "bad_key", "a key that is not in its canonical form");
  need(!isSmall(key), "bad_key", "a key of small order, under which one signature fits many messages");
}

/**
 * Refuses what the key did not sign.
 *
 * OpenSSL checks S < L and compares the bytes of R, without the cofactor, as the standard wants it. It does not look at
 * the order of R, so that is done here.
 */
export function checkSignature(key, message, signature) {
  checkKey(key);
  let holds = signature.length === 64 && !isSmall(signature.subarray(0, 32));
  try {
    const jwk = { kty: "OKP", crv: "Ed25519", x: Buffer.from(key).toString("base64url") };
    holds &&= crypto.verify(null, message, crypto.createPublicKey({ key: jwk, format: "jwk" }), signature);
  } catch {
    holds = false; // a key that is no point of the curve
  }
  need(holds, "bad_signature", "the signature does not belong to these bytes and this key");
}

/** The 32 bytes that people see like this: a key, or the digest of a certificate. */
export function bytesFromText(text) {
  need(/^[a-z2-7]{52}$/.test(text), "bad_key", "32 bytes are shown as 52 characters of a-z and 2-7");
  let bits = 0n;
  for (const letter of text) bits = (bits << 5n) | BigInt(LETTERS.indexOf(letter));
  need((bits & 15n) === 0n, "bad_key", "stray bits in the last character");
  return Buffer.from((bits >> 4n).toString(16).padStart(64, "0"), "hex");
}

/** The key that people see like this; every key has one name only. */
export function keyFromText(text) {
  const key = bytesFromText(text);
  checkKey(key);
  return key;
}

/** A key as people see it. */
export function keyToText(key) {
  const bits = BigInt(`0x${Buffer.from(key).toString("hex")}`) << 4n;
  return Array.from({ length: 52 }, (_, i) => LETTERS[Number((bits >> BigInt(5 * (51 - i))) & 31n)]).join("");
}
