/** One session with the tracker (sections 4 to 7): what it says is checked, what we say is signed and numbered. */
import { randomBytes } from "node:crypto";
import { CHALLENGE, readBody } from "./bodies.mjs";
import { checkDocument, checkMessage, digestOf, readEnvelope, seal, sessionContext } from "./envelope.mjs";
import { decode } from "./msgpack.mjs";
import { need } from "./refusal.mjs";
import { ConnectionLost, WebSocket } from "./websocket.mjs";

const BEFORE_HELLO = 4096;
const AFTER_HELLO = 512 * 1024;
const GREETING_MS = 10_000;
const SOFTWARE = "potluck-example-javascript 0.1";

/** The challenge's parts, if its tracker may speak for this horde. `newest` is the newest delegation seen before,
 * `certificate` the one that the link names, if it names one. */
export function checkChallenge(bytes, root, now, newest, certificate = null) {
  const parts = decode(bytes);
  need(Array.isArray(parts) && parts[1] === "challenge", "malformed", "the tracker did not begin with a challenge");
  need(parts[0] === 1, "unknown_version", `version ${parts[0]} of the protocol; this program knows version 1`);
  need(Buffer.isBuffer(parts[2]), "malformed", "a challenge without a body");
  const challenge = readBody(CHALLENGE, decode(parts[2]), "challenge");
  need(challenge.root.equals(root), "wrong_horde", "another horde answers here than the one in the link");
  const delegation = checkDelegation(challenge.delegation, root, now, newest);
  if (certificate) checkShown(challenge.shown, root, delegation.body.serving, certificate);
  return { session: challenge.session, delegation };
}

/** The serving key's word on the certificate in the link, without which anybody could have written it there. */
export function checkShown(bytes, root, serving, certificate) {
  need(bytes.length > 0, "wrong_certificate", "the serving key does not vouch for the certificate in the link");
  const envelope = readEnvelope(bytes);
  const { body } = checkDocument(envelope, root, serving);
  need(envelope.kind === "shown" && body.digest.equals(certificate), "wrong_certificate",
    "the serving key vouches for another certificate than the one in the link");
}

/** The root's word on who signs for the horde. */
export function checkDelegation(bytes, root, now, newest) {
  const envelope = readEnvelope(bytes);
  need(envelope.context.equals(root), "wrong_horde", "a delegation of another horde");
  need(envelope.kind === "serving" && envelope.key.equals(root), "bad_delegation", "not the root key's delegation");
  const { body, digest } = checkDocument(envelope, root, root);
  need(!body.expires || now <= body.expires, "bad_delegation", "the delegation has expired; the operator renews it");
  need(!newest || body.version >= newest.body.version, "bad_delegation", "an older delegation than one seen before");
  need(body.version !== newest?.body.version || digest.equals(newest.digest), "equivocation",
    `two different delegations of version ${body.version}: do not trust this horde before its operator explains it`);
  return { body, digest };
}

export class Session {
  /** Greet the tracker of a link as the peer with this key. */
  static async open(link, key, newest) {
    const socket = await WebSocket.connect(`${link.url}/peer`, BEFORE_HELLO, link.certificate);
    const timer = setTimeout(() => socket.socket.destroy(new Error("it did not greet in time")), GREETING_MS);
    try {
      const session = new Session(socket, link.root, key);
      await session.#greet(newest, link.certificate);
      return session;
    } catch (error) {
      socket.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  constructor(socket, root, key) {
    Object.assign(this, { socket, root, key, own: randomBytes(16), said: 0, heard: 0, offset: 0 });
    this.incoming = socket.messages();
  }

  async #greet(newest, certificate) {
    const { value } = await this.incoming.next();
    const { session, delegation } = checkChallenge(value, this.root, Date.now(), newest,
      certificate);
    Object.assign(this, { theirs: session, delegation, serving: delegation.body.serving });
    this.socket.limit = AFTER_HELLO;
    const before = Date.now();
    this.say("hello", { session: this.own, software: SOFTWARE });
    const welcome = await this.next();
    need(welcome.kind === "welcome", "out_of_turn", `the tracker said ${welcome.kind} where welcome was due`);
    // Half of the way there and back lies between its clock and ours.
    this.offset = Math.round(Number(welcome.body.clock) - (before + Date.now()) / 2);
    this.welcome = welcome.body;
  }

  /** The tracker's time. */
  now = () => Date.now() + this.offset;

  /** Say a session message. Returns its digest, by which a refusal names it. */
  say(kind, fields) {
    const bytes = seal(kind, this.key, sessionContext(this.root, this.theirs, this.said++), fields);
    this.socket.send(bytes);
    return digestOf(readEnvelope(bytes));
  }

  /** Send a document, byte for byte as it was signed. */
  send = (bytes) => this.socket.send(bytes);

  /** The next thing that the tracker says, checked: {kind, key, body, digest, bytes}. */
  async next() {
    const { value, done } = await this.incoming.next();
    if (done) throw new ConnectionLost("the connection ended");
    const envelope = readEnvelope(value);
    if (envelope.context.length === 56)
      return checkMessage(envelope, this.root, this.own, this.heard++, this.serving);
    // A peer record is signed by the worker that it is of; all else that is sent here, by the tracker, of which the
    // root says which keys served before: what they signed still counts.
    const served = [this.serving, ...this.delegation.body.former.map((one) => one.key)];
    return checkDocument(envelope, this.root, envelope.kind === "peer_record" ? null : served);
  }

  close = () => this.socket.close();
}
