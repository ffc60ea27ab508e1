/** The WebSocket client against a server that writes its frames byte by byte. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { ConnectionLost, WebSocket } from "./websocket.mjs";

const hex = (text) => Buffer.from(text.replaceAll(" ", ""), "hex");

/** A client whose server answers the handshake, then says these bytes in pieces; `heard` grows by what it is told. */
async function joined(t, said, { accept, extra = "", pieces = 3, limit = 1000 } = {}) {
  const heard = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (request) => {
      const key = /sec-websocket-key: (.*)\r\n/i.exec(request)[1];
      const proof = accept ?? createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${extra}`
        + `Sec-WebSocket-Accept: ${proof}\r\n\r\n`);
      for (let at = 0; at < said.length; at += pieces) socket.write(said.subarray(at, at + pieces));
      socket.on("data", (bytes) => heard.push(bytes));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  let client;
  t.after(() => (client?.socket.destroy(), server.close()));
  client = await WebSocket.connect(`ws://127.0.0.1:${server.address().port}/peer`, limit);
  return { client, heard };
}

/** All that comes before the end, and why it ended. */
async function everything(client) {
  const found = [];
  try {
    for await (const message of client.messages()) found.push(message.toString());
  } catch (error) {
    assert.ok(error instanceof ConnectionLost, error.stack);
    return [found, error];
  }
}

test("messages come whole, in parts, long, and with control frames between", async (t) => {
  const long = Buffer.alloc(300, "x");
  const { client, heard } = await joined(t, Buffer.concat([
    hex("82 02 6869"), // "hi"
    hex("02 01 61  89 01 70  00 01 62  80 01 63"), // a, a ping, b, c
    hex("82 7e 012c"), long, // 300 bytes
    hex("88 0b 03f0 627573793a20627965"), // close, 1008, "busy: bye"
  ]));
  const [found, why] = await everything(client);
  assert.deepEqual(found, ["hi", "abc", long.toString()]);
  assert.match(why.message, /1008.*busy: bye/);
  assert.equal(why.refusal, "busy");
  while (Buffer.concat(heard).length < 7) await new Promise(setImmediate);
  const pong = Buffer.concat(heard);
  assert.deepEqual([pong[0], pong[1], pong[6] ^ pong[2]], [0x8a, 0x81, 0x70]); // masked, with what the ping said
});

test("what is said is masked, whatever its length", async (t) => {
  for (const size of [0, 125, 126, 65_535, 65_536]) {
    const { client, heard } = await joined(t, Buffer.alloc(0));
    const message = Buffer.alloc(size, 7);
    client.send(message);
    client.close();
    const reading = everything(client);
    const extended = size < 126 ? 0 : size < 65_536 ? 2 : 8;
    const whole = () => Buffer.concat(heard);
    while (whole().length < 2 + extended + 4 + size + 8) await new Promise(setImmediate);
    assert.equal(whole()[0], 0x82);
    assert.ok(whole()[1] & 0x80);
    const mask = whole().subarray(2 + extended, 6 + extended);
    const payload = whole().subarray(6 + extended, 6 + extended + size);
    assert.deepEqual(payload.map((byte, i) => byte ^ mask[i & 3]), message);
    client.socket.destroy();
    await reading;
  }
});

for (const [name, said] of [
  ["a masked frame", "82 82 00000000 6869"],
  ["a text message", "81 02 6869"],
  ["a compressed frame", "c2 02 6869"],
  ["a control frame in parts", "09 01 61"],
  ["a long control frame", "89 7e 0080"],
  ["a continuation of nothing", "80 01 61"],
  ["a message within another", "02 01 61 82 01 62"],
  ["a frame that is too large", "82 7e 03e9"],
  ["a frame that is far too large", "82 7f ffffffffffffffff"],
]) {
  test(`${name} ends the connection`, async (t) => {
    const { client } = await joined(t, hex(said));
    const [found, why] = await everything(client);
    assert.deepEqual(found, []);
    assert.match(why.message, /frame|message/);
  });
}

test("parts that are too large together end the connection", async (t) => {
  const part = Buffer.alloc(600);
  const said = Buffer.concat([hex("02 7e 0258"), part, hex("80 7e 0258"), part]);
  const { client } = await joined(t, said, { pieces: 500 });
  assert.match((await everything(client))[1].message, /more than 1000/);
});

test("an answer that is not to this handshake, or with an extension, is refused", async (t) => {
  await assert.rejects(joined(t, Buffer.alloc(0), { accept: "AAAA" }), ConnectionLost);
  const extra = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
  await assert.rejects(joined(t, Buffer.alloc(0), { extra }), ConnectionLost);
});
