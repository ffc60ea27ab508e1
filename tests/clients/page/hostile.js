// A page that somebody opens while a gateway runs on the same machine. It tries whatever a page can do to get at what
// the gateway says, or to make it ask for something. `document.body.dataset.found` tells how each try went, as JSON: a
// status and a text that the page could read, or neither. With `key` it plays a page that has got hold of the key.

const { gateway, key } = await (await fetch("config.json")).json();
const PATIENCE_MS = 5000;

const CHAT = { messages: [{ role: "user", content: "spend it" }], max_tokens: 5 };
const DRAW = { prompt: "spend it", size: "64x64" };
const HORDE = { prompt: "spend it", params: { width: 64, height: 64, steps: 3 } };
const SAY = { prompt: "spend it", params: { max_length: 16, max_context_length: 1024 } };
const PAINT = { prompt: "spend it", width: 64, height: 64, steps: 3 };

const POSTS = {
  "/v1/chat/completions": CHAT,
  "/v1/images/generations": DRAW,
  "/api/v2/generate/async": HORDE,
  "/v2/generate/async": HORDE,
  "/api/v2/generate/text/async": SAY,
  "/api/v2/kudos/transfer": { username: "thief#1", amount: 1 },
  "/sdapi/v1/txt2img": PAINT,
  "/sdapi/v1/options": { sd_model_checkpoint: "theirs" },
  "/sdapi/v1/interrupt": {},
};
// A form or a frame without an origin cannot say a key, and each is a process of its own: not all of them.
const FRAMED = ["/v1/chat/completions", "/api/v2/generate/async", "/api/v2/generate/text/async", "/sdapi/v1/txt2img"];
const GETS = ["/", "/healthz", "/v1/models", "/api/v2/status/models", "/api/v2/workers", "/api/v2/find_user",
  "/api/v2/status/heartbeat", "/sdapi/v1/options", "/sdapi/v1/sd-models", "/sdapi/v1/progress"];

const nothing = { status: 0, text: "" };

function said(response) {
  return response.text().then((text) => ({ status: response.status, text: response.ok ? text.slice(0, 200) : "" }));
}

function shown(path) {
  if (path.includes("/v2/")) return { apikey: key || "0000000000", "Client-Agent": "KoboldAiLite:17" };
  if (path.startsWith("/sdapi")) return { Authorization: "Basic " + btoa("x:" + (key || "0000000000")) };
  return { Authorization: "Bearer " + (key || "0000000000") };
}

/** An element that loads something: whether it could. */
function loads(tag, attribute, url) {
  return new Promise((resolve) => {
    const element = document.createElement(tag);
    element.onload = () => resolve({ status: 200, text: `${tag} loaded` });
    element.onerror = () => resolve(nothing);
    element[attribute] = url;
    document.body.append(element);
  });
}

/** A frame that goes to a page, or is what a form is sent to: what its parent can read of it. */
function framed(start) {
  return new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = "frame" + Math.random();
    frame.onload = () => {
      let text = "";
      try {
        text = frame.contentDocument.location.href === "about:blank" ? "" : frame.contentDocument.body.innerText;
      } catch {
        text = "";
      }
      if (!frame.contentDocument || frame.contentDocument.location.href !== "about:blank") {
        resolve({ status: 0, text: text.includes("error") || text.includes("rc") ? "" : text.slice(0, 200) });
        frame.remove();
      }
    };
    document.body.append(frame);
    start(frame);
  });
}

/** A form, sent without anybody's doing. With text/plain its one field becomes the JSON around an equals sign. */
function form(url, body, enctype, policy) {
  return framed((frame) => {
    const element = document.createElement("form");
    Object.assign(element, { action: url, method: "POST", enctype, target: frame.name });
    if (policy) element.setAttribute("rel", policy);
    const text = JSON.stringify({ ...body, tail: "" });
    const input = document.createElement("input");
    if (enctype === "text/plain") {
      input.name = text.slice(0, -2);
      input.value = '"}';
      element.append(input);
    } else {
      for (const [name, value] of Object.entries(body)) {
        const field = document.createElement("input");
        field.name = name;
        field.value = typeof value === "string" ? value : JSON.stringify(value);
        element.append(field);
      }
    }
    document.body.append(element);
    element.submit();
  });
}

/** A frame without an origin of its own, which tries for us. */
function sandboxed(url, body, headers) {
  return new Promise((resolve) => {
    const frame = document.createElement("iframe");
    addEventListener("message", (event) => {
      if (event.source !== frame.contentWindow) return;
      resolve(event.data);
      frame.remove();
    });
    frame.sandbox = "allow-scripts";
    frame.srcdoc = `<script>
      fetch(${JSON.stringify(url)}, { method: "POST", headers: ${JSON.stringify(headers)}, body: ${JSON.stringify(JSON.stringify(body))} })
        .then(async (r) => ({ status: r.status, text: r.ok ? await r.text() : "" }), () => ({ status: 0, text: "" }))
        .then((found) => parent.postMessage(found, "*"));
    </script>`;
    document.body.append(frame);
  });
}

function socket(url) {
  return new Promise((resolve) => {
    const opened = new WebSocket(url.replace(/^http/, "ws"));
    opened.onopen = () => resolve({ status: 101, text: "open" });
    opened.onerror = () => resolve(nothing);
  });
}

function events(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    source.onopen = () => { source.close(); resolve({ status: 200, text: "open" }); };
    source.onerror = () => { source.close(); resolve(nothing); };
  });
}

const tries = {};

for (const [path, body] of Object.entries(POSTS)) {
  const url = gateway + path;
  const text = JSON.stringify(body);
  // As a front-end would, which a browser asks about first.
  tries[`json ${path}`] = () =>
    fetch(url, { method: "POST", body: text, headers: { ...shown(path), "Content-Type": "application/json" } }).then(said);
  // So that the browser does not ask first.
  tries[`simple ${path}`] = () => fetch(url, { method: "POST", body: text }).then(said);
  tries[`blind ${path}`] = () => fetch(url, { method: "POST", body: text, mode: "no-cors" }).then(said);
  tries[`nameless ${path}`] = () =>
    fetch(url, { method: "POST", body: text, mode: "no-cors", referrerPolicy: "no-referrer" }).then(said);
  tries[`cookies ${path}`] = () =>
    fetch(url, { method: "POST", body: text, mode: "no-cors", credentials: "include" }).then(said);
  tries[`beacon ${path}`] = async () => { navigator.sendBeacon(url, text); return nothing; };
  // By way of the page's own server, which sends it on with status 307.
  tries[`bounced ${path}`] = () => fetch(`bounce${path}`, { method: "POST", body: text, mode: "no-cors" }).then(said);
  if (!FRAMED.includes(path)) continue;
  tries[`plain form ${path}`] = () => form(url, body, "text/plain");
  tries[`nameless form ${path}`] = () => form(url, body, "text/plain", "noreferrer");
  tries[`form ${path}`] = () => form(url, body, "application/x-www-form-urlencoded");
  tries[`files form ${path}`] = () => form(url, body, "multipart/form-data");
  tries[`sandboxed ${path}`] = () => sandboxed(url, body, { ...shown(path), "Content-Type": "application/json" });
  tries[`sandboxed simple ${path}`] = () => sandboxed(url, body, {});
  tries[`bounced form ${path}`] = () => form(`bounce${path}`, body, "text/plain");
}
for (const path of GETS) {
  const url = gateway + path;
  tries[`get ${path}`] = () => fetch(url, { headers: shown(path) }).then(said);
  tries[`simple get ${path}`] = () => fetch(url).then(said);
  tries[`blind get ${path}`] = () => fetch(url, { mode: "no-cors" }).then(said);
  tries[`image ${path}`] = () => loads("img", "src", url);
  tries[`script ${path}`] = () => loads("script", "src", url);
  // It loads what is there, and fails where it is refused: enough to find out what answers.
  tries[`object ${path}`] = () => loads("object", "data", url);
  tries[`frame ${path}`] = () => framed((frame) => { frame.src = url; });
  tries[`events ${path}`] = () => events(url);
}
tries["delete"] = () =>
  fetch(`${gateway}/api/v2/generate/status/00000000-0000-4000-8000-000000000000`, { method: "DELETE" }).then(said);
tries["socket"] = () => socket(`${gateway}/v1/chat/completions`);
tries["socket of AI Horde"] = () => socket(`${gateway}/api/v2/generate/async`);
if (key) {
  const named = new URL(gateway || location.origin);
  named.username = "x";
  named.password = key;
  tries["key in the address"] = () => loads("img", "src", `${named.href}sdapi/v1/options`);
}

/** The same machine by its other names. */
for (const name of ["localhost", "0.0.0.0", "[::1]"]) {
  const other = new URL(gateway || location.origin);
  other.host = `${name}:${other.port}`;
  tries[`at ${name}`] = () =>
    fetch(`${other.origin}/api/v2/generate/async`, { method: "POST", body: JSON.stringify(HORDE) }).then(said);
}

const late = () => new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, nothing));
const found = {};
for (const [name, attempt] of Object.entries(tries)) {
  found[name] = Promise.race([Promise.resolve().then(attempt).catch(() => nothing), late()]);
  // Some at a time.
  if (Object.keys(found).length % 24 === 0) await Promise.all(Object.values(found));
}
for (const name of Object.keys(found)) found[name] = await found[name];
document.body.dataset.found = JSON.stringify(found);
