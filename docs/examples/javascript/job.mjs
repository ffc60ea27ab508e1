/** One request for one text, from asking to settlement (sections 6, 9 and 12). */
import { randomBytes, randomInt } from "node:crypto";
import { EventEmitter, on } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { checkDocument, outputDigest, privateDigest, readEnvelope, seal, digestOf } from "./envelope.mjs";
import { keyPair, keyToText } from "./keys.mjs";
import { encode } from "./msgpack.mjs";
import { need, Refusal, shown } from "./refusal.mjs";
import { Session } from "./session.mjs";
import { follow } from "./stream.mjs";
import { ConnectionLost } from "./websocket.mjs";

const MEDIA_TYPE = "text/plain; charset=utf-8";
const VALID_MS = 600_000;
const BYTES_PER_TOKEN = 1024;
const PATIENCE_MS = 5_000; // the tracker answers at once, unless the worker has delivered a receipt
// Somebody has to do something first.
const NO_RETURN = ["wrong_horde", "wrong_certificate", "bad_delegation", "bad_key", "unknown_version"];
const PASSING = ["busy", "internal", "stopping", "too_slow"];

export class Job {
  /** `ask` is {prompt, model, maxTokens, contextTokens}; `print` gets text as it comes, `tell` what happens. */
  constructor(link, ask, print, tell) {
    Object.assign(this, { link, print, tell });
    this.key = keyPair(); // nobody has an account for a fresh key: so this is what being anonymous is
    this.jobKey = keyPair();
    this.work = { kind: "text", max_tokens: ask.maxTokens, context_tokens: ask.contextTokens };
    this.models = ask.model ? [ask.model] : [];
    this.privatePart = encode({ kind: "text", messages: [{ role: "user", content: ask.prompt }],
      seed: randomInt(2 ** 48 - 1), salt: randomBytes(32) });
    this.privateDigest = privateDigest(this.privatePart);
    this.records = new Map(); // newest peer record by worker
    this.listed = []; // what the tracker says it holds of ours
    this.content = "";
    this.done = new AbortController();
    this.inbox = new EventEmitter(); // everything that happens, in one order: the tracker, the stream, the user
    this.inbox.on("error", () => {}); // run() is told; this is for what comes after its end
  }

  /** Ask, follow, verify and acknowledge. Returns the content and what proves it; throws a Refusal otherwise. */
  async run() {
    const events = on(this.inbox, "event"); // before the first one can be emitted
    this.#stayConnected();
    try {
      for await (const [{ from, event, attempt }] of events) {
        let result;
        if (from === "tracker") result = this.#heard(event);
        else if (from === "user") this.#stop();
        else if (attempt === this.attempt) result = this.#came(event); // what an older one still says is dropped
        if (result) return result;
      }
    } finally {
      clearTimeout(this.patience);
      this.stream?.abort();
      this.done.abort();
      this.session?.close();
    }
  }

  /** The user wants it no more. */
  cancel = () => this.inbox.emit("event", { from: "user" });

  async #stayConnected() {
    for (let failures = 0; !this.done.signal.aborted; failures++) {
      try {
        const session = await Session.open(this.link, this.key, this.delegation);
        failures = 0;
        this.session = session;
        this.now = session.now;
        this.delegation = session.delegation; // the newest counts, and an older one does not any more
        this.tell(`joined "${this.link.name}" (${keyToText(this.link.root)})`);
        session.say("holding", { entries: this.#holding(), last: true });
        for (;;) this.inbox.emit("event", { from: "tracker", event: await session.next() });
      } catch (error) {
        if (this.done.signal.aborted) return;
        this.session?.close();
        this.session = null;
        clearTimeout(this.patience);
        this.listed = [];
        const lasting = !(error instanceof ConnectionLost) || NO_RETURN.includes(error.refusal);
        if (lasting || (!this.request && failures === 4)) return void this.inbox.emit("error", error);
        this.tell(error.message);
        const delay = Math.random() * Math.min(30_000, 500 * 2 ** failures);
        await sleep(delay, undefined, { signal: this.done.signal }).catch(() => {});
      }
    }
  }

  /** What we hold that has not ended. */
  #holding() {
    const entries = [];
    if (this.request) entries.push({ kind: "request", job: this.nonce, digest: digestOf(readEnvelope(this.request)) });
    if (this.ending) {
      const { kind, body, digest } = this.ending;
      entries.push({ kind, job: body.job, attempt: body.attempt, digest });
    }
    return entries;
  }

  /** Each side has said what it holds: send what the tracker lacks, the same bytes as before. */
  #reconcile() {
    const has = (bytes) => this.listed.some((entry) => entry.digest.equals(digestOf(readEnvelope(bytes))));
    if (!this.request) this.#ask();
    if (!has(this.request)) {
      this.session.say("private", { private: this.privatePart });
      this.session.send(this.request);
    }
    if (this.ending) this.session.send(this.ending.bytes);
    if (this.cancelled) this.session.send(this.cancelled);
    if (this.trouble) this.#complain();
  }

  #ask() {
    this.nonce = randomBytes(16);
    this.request = seal("request", this.key, this.link.root, {
      nonce: this.nonce,
      valid_until: this.now() + VALID_MS,
      public: { work: this.work, models: this.models },
      private_digest: this.privateDigest,
      job_key: this.jobKey.public,
    });
  }

  /** Something of the tracker's, whose signature and form are right. */
  #heard({ kind, key, body, digest, bytes }) {
    if (body.job && this.job && !body.job.equals(this.job)) throw new Refusal("unknown_job", `${kind} of another job`);
    switch (kind) {
      case "rules":
        // Those of the welcome, or what the tracker puts in force while we are here.
        need(digest.equals(this.session.welcome.rules) || body.version > this.session.welcome.rules_version,
          "digest_mismatch", "neither the rules that the welcome names nor later ones");
        return void this.tell(`rules ${body.version} are in force`);
      case "holding":
        this.listed.push(...body.entries);
        return void (body.last && this.#reconcile());
      case "queued":
        need(body.jobs.length === 1, "bad_body", `asked for one text, and got ${body.jobs.length} jobs`);
        if (!this.job) this.tell(`queued as job ${body.jobs[0].toString("hex")}`);
        return void (this.job = body.jobs[0]);
      case "position":
        return void this.tell(`${body.ahead} go first; ${body.workers} workers could serve it`);
      case "peer_record":
        if (!(body.version < this.records.get(key.toString("hex"))?.version))
          this.records.set(key.toString("hex"), { ...body, digest });
        return undefined;
      case "checkpoint": return undefined; // shown to everybody; this program keeps nothing to hold the ledger to
      case "lease": return void this.#leased({ body, digest, bytes });
      case "requeued": return void this.#requeued(body);
      case "refused":
        if (body.final && PASSING.includes(body.code)) return void this.tell(`${body.code}: ${shown(body.text)}`);
        throw new Refusal(body.code, body.text);
      case "ended":
        throw new Refusal(body.state, [body.reason, body.text].filter(Boolean).join(": "));
      case "settlement": return this.#settled(body);
      default: throw new Refusal("out_of_turn", `the tracker said ${kind}, which nobody asked for`);
    }
  }

  #leased(lease) {
    const { body } = lease;
    need(this.job, "out_of_turn", "a lease before the request was queued");
    if (this.ending || body.attempt < (this.lease?.body.attempt ?? 0)) return;
    const record = this.records.get(body.worker.toString("hex"));
    need(record, "out_of_turn", "a lease came without its worker's peer record");
    if (body.attempt === this.lease?.body.attempt) {
      need(lease.digest.equals(this.lease.digest), "equivocation", `two leases of attempt ${body.attempt}`);
      // It came again. Either we lost touch, or the worker has moved; else it is read already.
      if (this.cut || !record.digest.equals(this.record.digest)) this.#follow(record);
      return;
    }
    const { work, models, n } = body.public;
    const same = Object.entries(this.work).every(([name, value]) => work[name] === value);
    const one = models.length === 1 && models[0] === body.model && n === 1 && body.index === 0;
    const wanted = !this.models.length || this.models.includes(body.model);
    need(same && one && wanted, "wrong_lease", "the lease is for other work than was asked for");
    need(body.job_key.equals(this.jobKey.public), "wrong_lease", "the lease is for another job key");
    need(body.private_digest.equals(this.privateDigest), "wrong_lease", "the lease is for another private part");
    need(body.deadline > this.now(), "wrong_lease", "the lease has ended already");
    this.tell(`attempt ${body.attempt}: leased to ${keyToText(body.worker)}, model ${shown(body.model)}`);
    this.lease = lease;
    this.attempt = { lease, privatePart: this.privatePart, prefix: this.content };
    this.#follow(record);
  }

  /** Read the stream of the current attempt, or read on, where this record leads. */
  async #follow(record) {
    this.stream?.abort();
    this.stream = new AbortController();
    this.#forgive();
    Object.assign(this, { record, cut: false, requeued: 0 });
    const { attempt, stream, link, jobKey } = this;
    const put = (event) => this.inbox.emit("event", { from: "stream", event, attempt });
    try {
      const way = { record, near: link.near, root: link.root, jobKey, signal: stream.signal };
      for await (const frame of follow(attempt, way)) put(frame);
    } catch (error) {
      put({ kind: "lost", error, stream });
    }
  }

  /** A frame of the current attempt. */
  #came(frame) {
    switch (frame.kind) {
      case "text":
        this.content += frame.text;
        need(Buffer.byteLength(this.content) <= this.work.max_tokens * BYTES_PER_TOKEN, "too_large",
          "the worker sends more text than was asked for");
        return void this.print(frame.text);
      case "anew":
        this.tell("this worker cannot go on from what is there, and begins anew");
        this.content = "";
        return void this.print("\n");
      case "final": return this.#final(frame);
      case "failed": // the worker tells the tracker, and another attempt follows
        return void this.#lost(frame.code || "failed", frame.text, false);
      case "lost":
        return void (frame.stream === this.stream && this.#lost(frame.error.code, frame.error.message, true));
      default: return undefined; // progress, alive: it is there
    }
  }

  /** Nothing more comes from this worker. */
  #lost(reason, text, report) {
    this.tell(`cannot get it from this worker (${shown(reason)}): ${shown(text)}`);
    need(!this.settlement, "not_received", "the job was settled, and its text had not come whole");
    this.cut = true;
    if (this.requeued === this.lease.body.attempt) return;
    this.trouble = { reason: reason.slice(0, 40), text: text.slice(0, 2000), report };
    if (this.session) this.#complain();
  }

  /** Ask for another worker. If this one has delivered a receipt, only a denial keeps it from being paid. */
  #complain() {
    const { reason, text, report } = this.trouble;
    const { job, attempt } = this.lease.body;
    if (report) this.session.say("unreachable", { job, attempt, reason, text });
    this.patience = setTimeout(() => this.#end("denial", { job, attempt, reason }, text), PATIENCE_MS);
  }

  /** The end of an attempt: acknowledge what came as signed, deny anything else. */
  #final(frame) {
    const { body: lease } = this.lease;
    const output = outputDigest(frame.salt, [[MEDIA_TYPE, Buffer.from(this.content)]]);
    const shared = { job: lease.job, attempt: lease.attempt };
    let receipt;
    try {
      receipt = checkDocument(readEnvelope(frame.receipt), this.link.root, lease.worker);
      const { body } = receipt;
      need(receipt.kind === "receipt" && body.job.equals(lease.job) && body.attempt === lease.attempt, "bad_receipt",
        "the receipt is for something else");
    } catch (error) {
      return void this.#end("denial", { ...shared, reason: "bad_receipt" }, error.message);
    }
    const { body } = receipt;
    const wrong =
      (!body.output_digest.equals(output) && "digest_mismatch") ||
      ((body.used > this.work.max_tokens || body.context_used > this.work.context_tokens) && "over_lease") ||
      (body.partial && !this.cancelled && "partial");
    if (wrong) return void this.#end("denial", { ...shared, reason: wrong, receipt: frame.receipt }, wrong);
    this.receipt = receipt;
    this.output = output;
    this.tell(`the receipt is right: ${body.used} tokens by ${shown(body.engine)}, finished by ${shown(frame.finish)}`);
    this.#end("acknowledgement", { ...shared, output_digest: output, receipt: frame.receipt });
    return this.settlement && this.#settled(this.settlement);
  }

  #end(kind, fields, why) {
    if (why) this.tell(`denied (${shown(fields.reason)}): ${shown(why)}`);
    const bytes = seal(kind, this.jobKey, this.link.root, fields);
    this.ending = { kind, bytes, body: fields, digest: digestOf(readEnvelope(bytes)) };
    this.session?.send(bytes);
  }

  #requeued(body) {
    if (this.ending || body.attempt !== this.lease?.body.attempt) return; // what came whole is being acknowledged
    this.#forgive();
    this.requeued = body.attempt; // what still comes of it counts until the next lease
    this.tell(`attempt ${body.attempt} ended (${shown(body.reason)}); waiting for another worker`);
  }

  #forgive() {
    clearTimeout(this.patience);
    this.trouble = null;
  }

  #settled(body) {
    const { job, attempt, paid, minted, burned, partial, entry, leaf, checkpoint } = body;
    const { body: lease } = this.lease ?? { body: {} };
    need(attempt === lease.attempt, "wrong_lease", `attempt ${attempt} was settled, and not ${lease.attempt}`);
    need(paid <= lease.paid && minted <= lease.free, "over_lease", "more was paid than the lease says");
    const tree = checkDocument(readEnvelope(checkpoint), this.link.root);
    need(tree.kind === "checkpoint" && tree.body.size <= entry, "bad_body", "a settlement without a right checkpoint");
    if (this.ending?.kind === "denial") throw new Refusal("not_received", "settled before the denial came");
    this.settlement = body;
    need(this.receipt || !this.cut, "not_received", "the job was settled, and its text had not come whole");
    if (!this.receipt) return undefined; // a partial receipt settles by itself, and may do so before it comes here
    const hex = (bytes) => bytes.toString("hex");
    return {
      content: this.content,
      receipt_digest: hex(this.receipt.body.output_digest),
      acknowledged_digest: hex(this.output),
      documents: [this.lease, this.receipt, this.ending].map(({ digest }) => hex(digest)), // what the ledger names
      settled: { job: hex(job), attempt, paid, minted, burned, partial, entry, leaf: hex(leaf) },
    };
  }

  #stop() {
    need(this.request, "cancelled", "before anything was asked for");
    this.tell("cancelling; what was made is paid for");
    this.cancelled = seal("cancel", this.jobKey, this.link.root,
      { nonce: randomBytes(16), valid_until: this.now() + VALID_MS });
    this.session?.send(this.cancelled);
  }
}
