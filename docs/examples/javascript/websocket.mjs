/** A small WebSocket client (RFC 6455), for Node brings none before 22: binary messages, no extensions. */
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";
import { Refusal, shown } from "./refusal.mjs";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // the standard's constant, which shows that both mean WebSocket
const CONTINUATION = 0, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

/** The connection is gone, or the other side does not speak WebSocket as it should. */
export class ConnectionLost extends Error {
  constructor(text, refusal) {
    super(text);
    this.refusal = refusal; // the code of section 15 with which the tracker closed, if it gave one
  }
}

export class WebSocket {
  /**
   * Connect to ws:// or wss://; `limit` is the most bytes that one message may have, and may be changed later.
   * `certificate`: the SHA-256 of the only one to take, else whatever the authorities vouch for.
   */
  static connect(url, limit, certificate = null) {
    return new Promise((resolve, reject) => {
      const key = randomBytes(16).toString("base64");
      const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13" };
      const fail = (text) => reject(new ConnectionLost(`no connection to ${url}: ${text}`));
      const scheme = url.startsWith("wss:") ? https : http;
      const request = scheme.get(url.replace(/^ws/, "http"),
        { headers, agent: false, rejectUnauthorized: certificate === null });
      request.setTimeout(10_000, () => request.destroy(new Error("no answer for 10 s")));
      request.on("error", (error) => fail(error.message || error.code));
      request.on("response", (response) => {
        response.destroy();
        fail(`HTTP ${response.statusCode} where a WebSocket was wanted`);
      });
      request.on("upgrade", (response, socket, head) => {
        const seen = certificate && createHash("sha256").update(socket.getPeerCertificate().raw).digest();
        if (certificate && !seen.equals(certificate)) {
          socket.destroy();
          reject(new Refusal("wrong_certificate", `${url} shows another certificate than the link names`));
          return;
        }
        const wanted = createHash("sha1").update(key + GUID).digest("base64");
        if (response.headers["sec-websocket-accept"] !== wanted || response.headers["sec-websocket-extensions"]) {
          socket.destroy();
          fail("the answer is not that of a WebSocket, or one with an extension that nobody asked for");
        } else resolve(new WebSocket(socket, head, limit));
      });
    });
  }

  constructor(socket, head, limit) {
    this.socket = socket;
    this.limit = limit;
    this.buffer = head;
    socket.setTimeout(0);
    socket.setKeepAlive(true, 30_000); // notices a network that has gone
    socket.on("error", () => {}); // whoever reads the messages is told; writing to what is gone is no fault
  }

  /** Send one binary message. */
  send = (bytes) => this.#frame(BINARY, bytes);

  /** Say goodbye and hang up. */
  close() {
    this.#frame(CLOSE, Buffer.from([1000 >> 8, 1000 & 255]));
    this.socket.end();
    this.socket.unref();
  }

  #frame(opcode, payload) {
    const mask = randomBytes(4); // a client has to mask, so that no proxy takes its bytes for something else
    const size = payload.length;
    const head = Buffer.alloc(size < 126 ? 2 : size < 65_536 ? 4 : 10);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | (size < 126 ? size : size < 65_536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(size, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(size), 2);
    const masked = Buffer.from(payload);
    for (let i = 0; i < size; i++) masked[i] ^= mask[i & 3];
    this.socket.write(Buffer.concat([head, mask, masked]));
  }

  /** Every message as it comes; ends with ConnectionLost. To be read once. */
  async *messages() {
    let whole = null; // the parts of a message that comes in several frames
    try {
      for await (const { final, opcode, payload } of this.#frames()) {
        if (opcode === CLOSE) this.#closed(payload);
        else if (opcode === PING) this.#frame(PONG, payload);
        else if (opcode !== PONG) {
          if ((opcode === CONTINUATION) !== (whole !== null)) throw new ConnectionLost("frames out of order");
          whole = Buffer.concat([whole ?? Buffer.alloc(0), payload]);
          if (whole.length > this.limit) throw new ConnectionLost(`a message of more than ${this.limit} bytes`);
          if (final) {
            yield whole;
            whole = null;
          }
        }
      }
    } catch (error) {
      throw error instanceof ConnectionLost ? error : new ConnectionLost(`the connection broke: ${error.message}`);
    } finally {
      this.socket.destroy();
    }
    throw new ConnectionLost("the connection ended");
  }

  #closed(payload) {
    const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
    const reason = payload.toString("utf8", 2);
    throw new ConnectionLost(`the tracker closed the connection (${code}): ${shown(reason)}`,
      /^(\w+): /.exec(reason)?.[1]);
  }

  async *#frames() {
    const chunks = this.socket[Symbol.asyncIterator]();
    const take = async (size) => {
      while (this.buffer.length < size) {
        const { value, done } = await chunks.next();
        if (done) throw new ConnectionLost("the connection ended");
        this.buffer = Buffer.concat([this.buffer, value]);
      }
      const taken = this.buffer.subarray(0, size);
      this.buffer = this.buffer.subarray(size);
      return taken;
    };
    for (;;) {
      const [first, second] = await take(2);
      const opcode = first & 15;
      let size = second & 127;
      if (first & 0x70 || second & 0x80 || ![CONTINUATION, BINARY, CLOSE, PING, PONG].includes(opcode))
        throw new ConnectionLost("a frame that is masked, extended, or neither binary nor control");
      if (opcode >= CLOSE && (size > 125 || !(first & 0x80))) throw new ConnectionLost("a control frame in parts");
      if (size === 126) size = (await take(2)).readUInt16BE(0);
      else if (size === 127) size = Number((await take(8)).readBigUInt64BE(0));
      if (size > this.limit) throw new ConnectionLost(`a message of more than ${this.limit} bytes`);
      yield { final: Boolean(first & 0x80), opcode, payload: await take(size) };
    }
  }
}
