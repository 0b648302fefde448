"use strict";
const byId = (id) => document.getElementById(id);
const short = (id) => (id ? id.slice(0, 6) + "…" : "none");

function show({ clientId, sessionId, session, node }) {
  byId("count").textContent = session?.n ?? 0;
  byId("session").textContent = short(sessionId);
  byId("client").textContent = short(clientId);
  byId("data").textContent = session ? JSON.stringify(session) : "none";
  if (node) byId("node").textContent = node;
}

/** A line on top: what it was, on which node, and what came of it. */
function log(kind, name, node, text) {
  const [body] = byId("events").firstElementChild.tBodies;
  const row = body.insertRow(0);
  const cells = [["time", new Date().toLocaleTimeString()], [kind, name], ["", node ?? ""], ["", text]];
  for (const [look, content] of cells) {
    const cell = row.insertCell();
    cell.className = look;
    cell.textContent = content;
  }
  while (body.rows.length > 100) body.lastElementChild.remove();
}

function problem(text) {
  byId("problem").textContent = text;
}

async function request(method, path, body) {
  const answer = await fetch(path, { method, cache: "no-store", body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
  return answer.json();
}

async function post(path, body) {
  const { node, sessionId } = await request("POST", path, body);
  log("call", `POST ${path}`, node, sessionId ? `session ${short(sessionId)}` : "");
}

// Answers may overtake each other; only the newest question counts.
let asked = 0;
async function refresh(ask = () => request("GET", "session")) {
  const question = ++asked;
  const answer = await ask();
  if (question === asked) show(answer);
}

// The last thing that this tab asked for: its answer may bring new cookies.
let doing = Promise.resolve();
function on(id, action) {
  byId(id).addEventListener("click", () => {
    problem("");
    doing = action().then(() => refresh()).catch((error) => problem(error.message));
  });
}

function describe({ isNew, isInit, reason }) {
  if (reason) return `ended: ${reason}`;
  if (isNew) return "began";
  return isInit ? "has a new id, or is used again" : "changed";
}

async function main() {
  // Before the socket connects: this answer sets the cookies that its handshake needs.
  await refresh();
  const socket = io();
  const state = (text) => { byId("state").textContent = text; };
  const answer = (name) => socket.timeout(5000).emitWithAck(name);
  const call = async (name) => {
    const { ok, error, node, sessionId } = await answer(name);
    if (!ok) throw new Error(`${name}: ${error}`);
    log("call", name, node, sessionId ? `session ${short(sessionId)}` : "");
  };
  // A sealed session is seen by sockets whose handshake carried its cookie. One that connected before
  // another tab's login had brought the cookie has to connect again, once.
  let again = true;
  const compare = async () => {
    await refresh();
    const [{ sessionId }, { ok }] = await Promise.all([request("GET", "session"), answer("session:get")]);
    if (sessionId && !ok && again) {
      again = false;
      socket.disconnect().connect();
    }
  };
  socket.on("connect", () => {
    state(`connected by ${socket.io.engine.transport.name}`);
    socket.io.engine.once("upgrade", (transport) => state(`connected by ${transport.name}`));
    answer("node").then((node) => { byId("socket-node").textContent = node; }).catch(() => {});
    compare().catch((error) => problem(error.message));
  });
  socket.on("disconnect", (reason) => {
    state(`disconnected: ${reason}`);
    byId("socket-node").textContent = "none";
    if (reason !== "io server disconnect") return;
    // The session ended or was sealed: come back, with the cookies of the answer that is under way.
    again = true;
    doing.then(() => socket.connect());
  });
  socket.on("connect_error", (error) => state(`refused: ${error.message}`));
  // A tab may be notified of a new session before the answer to the tab that began it has brought the
  // cookie, without which HTTP shows none. The socket needs no cookie.
  const seen = async () => {
    const { ok, clientId, sessionId, session } = await answer("session:get");
    return ok ? { clientId, sessionId, session } : request("GET", "session");
  };
  // This node is about to stop: another one takes the connection.
  socket.on("session:move", () => doing.then(() => socket.disconnect().connect()));
  for (const name of ["session:set", "session:destroy"]) {
    socket.on(name, (payload) => {
      log(name.slice(8), name, payload.node, `session ${short(payload.sessionId)} ${describe(payload)}`);
      refresh(seen).catch((error) => problem(error.message));
    });
  }
  on("inc-http", () => post("session/inc"));
  on("login", () => post("login", { user: "you" }));
  on("rotate", () => post("session/regenerate"));
  on("renew", () => post("session/renew"));
  on("logout", () => post("logout"));
  on("inc-socket", () => call("session:inc"));
  on("logout-socket", () => call("session:destroy"));
}
main().catch((error) => problem(error.message));
