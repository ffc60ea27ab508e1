/**
 * Strict msgpack (section 1).
 *
 * The package writes; its forms are the shortest ones, which the output digest asks for. Reading is done here, for no
 * option of the package makes it see a field that comes twice, or a float whose value happens to be whole.
 */
import { encode as write } from "@msgpack/msgpack";
import { need } from "./refusal.mjs";

const MAX_DEPTH = 16;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The msgpack of a value. (With its option useBigInt64 the package would write large numbers as floats.) */
export const encode = (value) => Buffer.from(write(value, { ignoreUndefined: true }));

/**
 * The one value that these bytes are. Maps come as objects without a prototype, bytes as Buffer, and integers that a
 * number of JavaScript cannot hold as BigInt.
 */
export function decode(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  need(reader.at === bytes.length, "malformed", "bytes follow after the end");
  return value;
}

class Reader {
  constructor(bytes) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = 0;
  }

  take(length) {
    need(length <= this.bytes.length - this.at, "malformed", "cut short");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  /** An unsigned number of so many bytes. */
  unsigned = (length) => this.take(length).readUIntBE(0, length);

  value(depth) {
    const head = this.unsigned(1);
    if (head < 0x80) return head;
    if (head < 0x90) return this.map(head & 0x0f, depth + 1);
    if (head < 0xa0) return this.array(head & 0x0f, depth + 1);
    if (head < 0xc0) return this.text(head & 0x1f);
    if (head >= 0xe0) return head - 0x100;
    switch (head) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.take(this.unsigned(1 << (head - 0xc4)));
      case 0xcc: case 0xcd: case 0xce: return this.unsigned(1 << (head - 0xcc));
      case 0xcf: return this.integer(this.take(8).readBigUInt64BE());
      case 0xd0: case 0xd1: case 0xd2: return this.take(1 << (head - 0xd0)).readIntBE(0, 1 << (head - 0xd0));
      case 0xd3: return this.integer(this.take(8).readBigInt64BE());
      case 0xd9: case 0xda: case 0xdb: return this.text(this.unsigned(1 << (head - 0xd9)));
      case 0xdc: case 0xdd: return this.array(this.unsigned(2 << (head - 0xdc)), depth + 1);
      case 0xde: case 0xdf: return this.map(this.unsigned(2 << (head - 0xde)), depth + 1);
      default: return need(false, "malformed", `type 0x${head.toString(16)}: floats and extensions are not allowed`);
    }
  }

  integer(value) {
    need(value < 1n << 63n, "malformed", "an integer beyond 2^63-1");
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  text(length) {
    const bytes = this.take(length);
    try {
      return utf8.decode(bytes);
    } catch {
      return need(false, "malformed", "text that is no UTF-8");
    }
  }

  array(size, depth) {
    need(depth <= MAX_DEPTH, "malformed", "nested too deeply");
    const found = []; // grown as elements come: the size is only what a stranger claims
    for (let i = 0; i < size; i++) found.push(this.value(depth));
    return found;
  }

  map(size, depth) {
    need(depth <= MAX_DEPTH, "malformed", "nested too deeply");
    const found = Object.create(null); // so that fields like "constructor" are only what was sent
    for (let i = 0; i < size; i++) {
      const name = this.value(depth);
      need(typeof name === "string", "malformed", "a field name that is not text");
      need(!(name in found), "malformed", `field ${name} comes twice`);
      need(!name.startsWith("!"), "unknown_critical_field", `field ${name} must be understood, and is not`);
      found[name] = this.value(depth);
    }
    return found;
  }
}
