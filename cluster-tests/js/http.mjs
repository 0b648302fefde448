// Sessions over HTTP.
import { assert, check, idIn, raw, run, until } from "./harness.mjs";

/** Which session an answer is of, and its data: all but the node, which may be another one. */
const state = ({ json: { node, ...rest } }) => rest;

check("the first answer sets a signed client cookie for a year, and every answer rolls it", async ({ browser }) => {
  const b = browser();
  const first = await b.get();
  assert.equal(first.status, 200);
  const [line] = first.setCookies("app.sid.cid");
  for (const part of ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=31536000", "Expires="]) {
    assert.ok(line.includes(part), line);
  }
  assert.ok(!line.includes("Secure"), line);
  assert.equal(first.json.clientId.length, 24);
  for (const path of ["/session", "/no/such/page"]) {
    const later = await b.get(path);
    assert.equal(later.setCookies("app.sid.cid").length, 1);
  }
  assert.equal((await b.get()).json.clientId, first.json.clientId);
});

check("reading and writing nothing create no session", async ({ browser }) => {
  const b = browser();
  for (const answer of [await b.get(), await b.post("/session/set", {}), await b.post("/session/merge", {}), await b.post("/session/regenerate")]) {
    assert.equal(answer.status, 200);
    assert.equal(answer.json.sessionId, null);
    assert.equal(answer.json.session, null);
    assert.equal(answer.setCookies("app.sid").length, 0);
  }
});

check("the first change creates the session, names it, and forbids caching its cookie", async ({ browser }) => {
  const b = browser();
  const created = await b.post("/session/inc");
  assert.deepEqual(created.json.session, { n: 1 });
  assert.equal(created.json.sessionId.length, 43);
  const [line] = created.setCookies("app.sid");
  for (const part of ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=", "Expires="]) assert.ok(line.includes(part), line);
  assert.equal(created.headers["cache-control"], "private, no-store");
  assert.deepEqual(state(await b.get()), state(created));
});

check("a session cookie that the browser has is not sent again, by reads and by changes", async ({ seeded }) => {
  const b = await seeded({ a: { x: 1, y: [1, 2] } });
  const id = (await b.get()).json.sessionId;
  for (const answer of [await b.get(), await b.post("/session/merge", { a: { y: [1, 2], x: 1 } })]) {
    assert.equal(answer.setCookies("app.sid").length, 0);
  }
  const changed = await b.post("/session/merge", { b: 1 });
  assert.equal(changed.setCookies("app.sid").length, 0);
  assert.equal(changed.json.sessionId, id);
});

check("an existing session can be emptied and keeps its id", async ({ seeded }) => {
  const b = await seeded();
  const id = (await b.get()).json.sessionId;
  assert.equal((await b.post("/session/set", {})).status, 200);
  assert.deepEqual([(await b.get()).json.sessionId, (await b.get()).json.session], [id, {}]);
});

check("a logout clears the session cookie, keeps the client, and kills the old cookie", async ({ seeded }) => {
  const b = await seeded();
  const before = (await b.get()).json;
  const stolen = b.clone();
  const out = await b.post("/logout");
  assert.equal(out.status, 200);
  const [line] = out.setCookies("app.sid");
  assert.ok(line.startsWith("app.sid=;") && line.includes("Path=/") && line.includes("HttpOnly"), line);
  assert.equal((await b.get()).json.clientId, before.clientId);
  assert.equal((await stolen.get()).json.session, null);
  const next = await stolen.post("/session/inc");
  assert.notEqual(next.json.sessionId, before.sessionId);
  assert.deepEqual(next.json.session, { n: 1 });
});

check("a logout without a session is harmless", async ({ browser }) => {
  const b = browser();
  const out = await b.post("/logout");
  assert.equal(out.status, 200);
  assert.equal(out.setCookies("app.sid").length, 0);
});

check("a new id keeps the data, and the old one opens nothing", async ({ seeded }) => {
  const b = await seeded({ n: 5, keep: "me" });
  const before = b.clone();
  const old = (await b.get()).json;
  const rotated = (await b.post("/session/regenerate")).json;
  assert.notEqual(rotated.sessionId, old.sessionId);
  assert.deepEqual(rotated.session, old.session);
  assert.equal(rotated.clientId, old.clientId);
  assert.equal((await before.get()).json.session, null);
  assert.deepEqual((await b.get()).json.session, old.session);
});

check("the client cookie alone opens nothing", async ({ seeded }) => {
  const b = await seeded();
  b.jar.delete("app.sid");
  assert.equal((await b.get()).json.session, null);
});

check("the session cookie alone keeps session and client, and the client cookie comes back", async ({ seeded }) => {
  const b = await seeded();
  const before = state(await b.get());
  b.jar.delete("app.sid.cid");
  const after = await b.get();
  assert.deepEqual(state(after), before);
  assert.equal(after.setCookies("app.sid.cid").length, 1);
  assert.deepEqual(state(await b.get()), before);
});

check("another client's cookie beside a session cookie is corrected", async ({ seeded }) => {
  const [a, b] = [await seeded({ who: "a" }), await seeded({ who: "b" })];
  const owner = state(await b.get());
  a.jar.set("app.sid", b.jar.get("app.sid"));
  assert.deepEqual(state(await a.get()), owner);
  a.jar.delete("app.sid");
  assert.equal((await a.get()).json.clientId, owner.clientId);
});

check("twenty first posts at once make one session with all changes", async ({ browser }) => {
  for (let round = 0; round < 5; round += 1) {
    const b = browser();
    await b.get();
    const tabs = Array.from({ length: 20 }, () => b.clone());
    const answers = await Promise.all(tabs.map((tab, n) => tab.post("/session/merge", { [`k${n}`]: n })));
    for (const answer of answers) assert.equal(answer.status, 200, answer.text);
    assert.equal(new Set(tabs.map((tab) => idIn(tab.jar.get("app.sid")))).size, 1);
    const { session } = (await tabs[0].get()).json;
    assert.equal(Object.keys(session).length, 20, JSON.stringify(session));
  }
});

check("writers of different keys keep each other's changes", async ({ seeded }) => {
  const b = await seeded();
  await Promise.all(Array.from({ length: 30 }, (_, n) => b.clone().post("/session/merge", { [`k${n}`]: n })));
  assert.equal(Object.keys((await b.get()).json.session).length, 31);
});

check("parallel increments lose nothing", async ({ seeded }) => {
  const b = await seeded({ n: 0 });
  await Promise.all(Array.from({ length: 50 }, () => b.clone().post("/session/inc")));
  assert.deepEqual((await b.get()).json.session, { n: 50 });
});

check("a handshake sets the client cookie, whatever the transport asks for", async ({ browser }) => {
  const b = browser();
  const opened = await b.get("/socket.io/?EIO=4&transport=polling");
  assert.equal(opened.status, 200);
  assert.equal(opened.setCookies("app.sid.cid").length, 1);
  assert.equal(opened.setCookies("app.sid").length, 0);
  const { clientId } = (await b.get()).json;
  // By websocket the cookie comes with the 101.
  const other = browser();
  const key = Buffer.from("sixteen bytes ok").toString("base64");
  const answer = await raw(other.url(), `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${key}\r\ncookie: ${b.cookies()}\r\n\r\n`);
  assert.match(answer, /^HTTP\/1.1 101/);
  const cookie = /^set-cookie: (app\.sid\.cid=[^;]+)/im.exec(answer)[1];
  assert.equal((await other.get("/session", { cookie })).json.clientId, clientId);
});

check("health, metrics and dashboard answer", async ({ browser, seeded, urls }) => {
  const b = browser();
  assert.equal((await b.get("/healthz")).json.status, "ok");
  const created = async () => {
    const answers = await Promise.all(urls.map((url) => b.pinned(url).get("/metrics")));
    const figure = ({ text }) => Number(/^axum_io_session_created_total\{[^}]*\} (\d+)$/m.exec(text)[1]);
    return answers.map(figure).reduce((sum, one) => sum + one);
  };
  const before = await created();
  await seeded();
  await until("the figure grows", async () => (await created()) > before);
  assert.match((await b.get("/monitor")).text, /<title>Sessions/);
  assert.equal(typeof (await b.get("/monitor/stats")).json.stats.requests, "number");
});

await run();
