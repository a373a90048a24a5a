// What every page of the site runs: it does what the test says and reports what it sees, in order.
"use strict";

const number = new URLSearchParams(location.search).get("page");
const waiting = [];
let sending = false;

async function report(kind, fields = {}) {
  waiting.push({ kind, ...fields });
  if (sending) return;
  sending = true;
  while (waiting.length) {
    const reports = waiting.splice(0);
    await fetch(`/-/report?page=${number}`, { method: "POST", body: JSON.stringify(reports) });
  }
  sending = false;
}

// A service of the site's own, which sets the cookie natsgate_token.
function signIn(attributes = "SameSite=Lax") {
  return fetch("/-/sign-in", { method: "POST", body: attributes });
}

function signOut() {
  return fetch("/-/sign-out", { method: "POST" });
}

const CONTROL = ["ready", "gap", "cursor", "state", "closing"].map((name) => `natsgate.${name}`);

function watchEvents(url, { names = [], ...options } = {}) {
  const source = new EventSource(url, options);
  source.onopen = () => report("open", { state: source.readyState });
  source.onerror = () => report("error", { state: source.readyState });
  source.onmessage = ({ data, lastEventId }) => report("message", { data: JSON.parse(data), id: lastEventId });
  for (const name of [...CONTROL, ...names])
    source.addEventListener(name, ({ data, lastEventId }) =>
      report(name, { data: JSON.parse(data), id: lastEventId, state: source.readyState }),
    );
  return source;
}

function watchSocket(url, protocols = ["natsgate.v1"], first = []) {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => {
    report("open", { protocol: socket.protocol });
    first.forEach((message) => socket.send(JSON.stringify(message)));
  };
  socket.onerror = () => report("failure");
  socket.onclose = ({ code, reason, wasClean }) => report("close", { code, reason, wasClean });
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    report(message.op, message);
  };
  return socket;
}

// An event stream read without EventSource: fetch can send headers.
async function watchFetch(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    report("refused", { error: error.name });
    return;
  }
  report("answer", { status: response.status, type: response.headers.get("content-type") });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      if (field("data")) report(field("event") ?? "message", { data: JSON.parse(field("data")), id: field("id") });
    }
  }
  report("end", { rest: text });
}

async function follow() {
  const AsyncFunction = (async () => {}).constructor;
  for (;;) {
    const { go, run, script, args } = await (await fetch(`/-/next?page=${number}`)).json();
    if (go) {
      location.href = go;
      return;
    }
    new AsyncFunction("args", script)(args).then(
      (result) => report("done", { run, result }),
      (error) => report("failed", { run, error: String(error) }),
    );
  }
}

report("here", { origin: location.origin, agent: navigator.userAgent });
follow();
