// Sessions on sockets that stay connected, by the transport that TRANSPORT names.
import { assert, check, pause, run, TRANSPORTS, until } from "./harness.mjs";

const transport = process.env.TRANSPORT ?? "websocket";

check(`sockets connect by ${transport}`, async ({ seeded }) => {
  const tab = await (await seeded()).open();
  assert.ok(TRANSPORTS[transport]);
  const last = TRANSPORTS[transport].at(-1);
  await until(last, () => tab.socket.io.engine.transport.name === last);
  assert.equal((await tab.ok("session:inc")).session.n, 2);
});

check("a socket opened before the session exists sees it after the HTTP call", async ({ browser }) => {
  const b = browser();
  await b.get();
  const tab = await b.open();
  for (const event of ["session:get", "session:inc", "session:destroy"]) {
    assert.equal(await tab.refused(event), "missing-session");
  }
  const created = (await b.post("/session/inc")).json;
  const answer = await tab.ok("session:inc");
  assert.deepEqual([answer.sessionId, answer.clientId, answer.session], [created.sessionId, created.clientId, { n: 2 }]);
  assert.deepEqual((await b.get()).json.session, { n: 2 });
});

check("an answer names client, session and node as HTTP does", async ({ seeded }) => {
  // One node: HTTP and sockets take turns over all nodes otherwise.
  const b = (await seeded({ n: 1 })).pinned();
  const { clientId, sessionId, node } = (await b.get()).json;
  const tab = await b.open();
  assert.deepEqual(await tab.ok("session:get"), { ok: true, clientId, sessionId, session: { n: 1 }, node });
  assert.deepEqual(await tab.ok("session:inc"), { ok: true, clientId, sessionId, session: { n: 2 }, node });
  assert.deepEqual(await tab.ok("session:set", { a: 1 }), { ok: true, clientId, sessionId, session: { a: 1 }, node });
  assert.equal((await tab.ok("session:destroy")).node, node);
});

check("a logout over HTTP tells the open socket, which stays connected", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  const here = b.pinned();
  const { sessionId, node } = (await here.get()).json;
  await here.post("/logout");
  const told = await tab.message("session:destroy");
  assert.deepEqual(told, { name: "session:destroy", sessionId, reason: "destroyed", node });
  assert.equal(await tab.refused("session:get"), "missing-session");
  assert.ok(tab.socket.connected);
  await b.post("/session/set", { n: 7 });
  assert.equal((await tab.ok("session:inc")).session.n, 8);
});

for (const [name, path] of [["a sealed session", "/session/regenerate"], ["a new id", "/session/renew"]]) {
  check(`${name} keeps the socket working`, async ({ seeded }) => {
    const b = await seeded();
    const tab = await b.open();
    const since = tab.mark();
    const { sessionId } = (await b.post(path)).json;
    const told = await tab.message("session:set", since, (m) => m.sessionId === sessionId);
    assert.deepEqual([told.isNew, told.isInit], [false, true]);
    const answer = await tab.ok("session:inc");
    assert.deepEqual([answer.sessionId, answer.session], [sessionId, { n: 2 }]);
    assert.ok(!(await tab.settled(since)).some((m) => m.name === "session:destroy"));
  });
}

check("200 increments of 8 sockets and HTTP end at exactly 200", async ({ seeded }) => {
  const b = await seeded({ n: 0 });
  const tabs = await Promise.all(Array.from({ length: 8 }, () => b.open()));
  const work = [];
  for (let n = 0; n < 20; n += 1) for (const tab of tabs) work.push(tab.ok("session:inc"));
  for (let n = 0; n < 40; n += 1) work.push(b.clone().post("/session/inc"));
  const results = await Promise.all(work);
  const seen = new Set(results.map((result) => (result.json ?? result).session.n));
  assert.equal(seen.size, 200, "each saw a number of its own");
  assert.deepEqual((await b.get()).json.session, { n: 200 });
});

check("a socket replaces the session, null ends it, and anything else is refused", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  assert.deepEqual((await tab.ok("session:set", { a: [1, "é"] })).session, { a: [1, "é"] });
  for (const bad of [[1], "x", 5, true]) await tab.refused("session:set", bad);
  await tab.refused("session:set");
  assert.deepEqual((await b.get()).json.session, { a: [1, "é"] });
  await tab.ok("session:set", null);
  assert.equal(await tab.refused("session:get"), "missing-session");
  assert.equal((await b.get()).json.session, null);
});

check("a socket never creates a session", async ({ browser }) => {
  const b = browser();
  await b.get();
  const tab = await b.open();
  assert.equal(await tab.refused("session:set", { a: 1 }), "missing-session");
  assert.equal((await b.get()).json.session, null);
});

check("nested use is refused and the session stays usable", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  assert.match(await tab.refused("session:nested"), /already held/);
  assert.deepEqual((await tab.ok("session:inc")).session, { n: 2 });
});

check("a handler that fails or panics writes nothing and blocks nobody", async ({ seeded }) => {
  const b = await seeded();
  const [one, two] = [await b.open(), await b.open()];
  const since = two.mark();
  assert.match(await one.refused("session:throw"), /on purpose/);
  one.socket.emit("session:panic");
  assert.deepEqual((await two.ok("session:inc")).session, { n: 2 });
  assert.deepEqual((await one.ok("session:get")).session, { n: 2 });
  await two.message("session:set", since);
  assert.equal((await two.settled(since)).filter((m) => m.name === "session:set").length, 1);
});

check("a socket that leaves in the middle of its handler writes nothing and blocks nobody", async ({ seeded }) => {
  const b = await seeded();
  const [leaver, stayer] = [await b.open(), await b.open()];
  leaver.socket.emit("session:slow", 60_000);
  // It has the session once another has to wait.
  await until("it holds the session", async () => {
    const quick = await Promise.race([stayer.ok("session:get").then(() => true), pause(200).then(() => false)]);
    return !quick;
  });
  leaver.close();
  const { n } = (await stayer.ok("session:get")).session;
  assert.equal(n, 1);
  assert.deepEqual((await stayer.ok("session:inc")).session, { n: 2 });
});

check("a session ended during a handler stays ended", async ({ seeded }) => {
  const b = await seeded();
  const [slow, other] = [await b.open(), await b.open()];
  const answer = slow.call("session:slow", 2_000);
  await until("it holds the session", async () => {
    const quick = await Promise.race([other.ok("session:get").then(() => true), pause(100).then(() => false)]);
    return !quick;
  });
  await b.post("/logout");
  assert.equal((await answer).ok, false);
  assert.equal((await b.get()).json.session, null);
  assert.equal(await other.refused("session:get"), "missing-session");
});

for (const [what, path, n] of [
  ["a new id during a handler loses nothing", "/session/renew", 2],
  ["nothing that a handler began before a session was sealed lands in it", "/session/regenerate", 1],
]) {
  check(what, async ({ seeded }) => {
    const b = await seeded();
    const [slow, other] = [await b.open(), await b.open()];
    const answer = slow.call("session:slow", 2_000);
    await until("it holds the session", async () => {
      const quick = await Promise.race([other.ok("session:get").then(() => true), pause(100).then(() => false)]);
      return !quick;
    });
    const { sessionId } = (await b.post(path)).json;
    assert.equal((await answer).ok, n === 2);
    const after = (await b.get()).json;
    assert.deepEqual([after.sessionId, after.session], [sessionId, { n }]);
    assert.deepEqual((await other.ok("session:inc")).session, { n: n + 1 });
  });
}

check("different sessions do not wait for each other", async ({ seeded }) => {
  const [a, b] = [await (await seeded()).open(), await (await seeded()).open()];
  let done = false;
  a.socket.emit("session:slow", 9_000, () => { done = true; });
  await b.ok("session:inc");
  assert.equal(done, false, "it did not wait for the other");
});

check("a socket with the client cookie alone sees no session but a later one", async ({ seeded }) => {
  const b = await seeded();
  const half = b.clone();
  half.jar.delete("app.sid");
  const tab = await half.open();
  assert.equal(await tab.refused("session:get"), "missing-session");
  await b.post("/session/inc");
  assert.equal(await tab.refused("session:inc"), "missing-session");
  await b.post("/logout");
  assert.deepEqual(await tab.settled(), [], "it hears nothing of a session that it may not see");
  const { sessionId } = (await b.post("/session/inc")).json;
  assert.equal((await tab.ok("session:get")).sessionId, sessionId);
});

check("a socket with a changed cookie has no session", async ({ seeded }) => {
  const b = await seeded();
  const forged = b.clone();
  for (const [name, value] of b.jar) forged.jar.set(name, value.slice(0, -1) + (value.endsWith("A") ? "B" : "A"));
  const tab = await forged.open();
  assert.equal(await tab.refused("session:get"), "missing-session");
});

check("after a reconnect the socket has its session", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open({ reconnection: true, reconnectionDelay: 50 });
  await tab.ok("session:inc");
  const back = new Promise((done) => tab.socket.once("connect", done));
  tab.socket.io.engine.close();
  await back;
  assert.deepEqual((await tab.ok("session:inc")).session, { n: 3 });
  const since = (await tab.settled()).length;
  await b.post("/session/inc");
  await tab.message("session:set", since);
  assert.equal((await tab.settled(since)).filter((m) => m.name === "session:set").length, 1);
});

check("unknown events, missing answers and odd arguments hurt nobody", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  tab.socket.emit("no:such:event", 1, 2, 3);
  tab.socket.emit("session:inc");
  tab.socket.emit("session:get", Buffer.from([1, 2, 3]));
  tab.socket.emit("session:slow", "not a number", { nor: "this" });
  await tab.refused("session:set", Buffer.from([1, 2, 3]));
  await until("the increment", async () => (await b.get()).json.session.n >= 2);
  assert.equal((await tab.call("session:get")).ok, true);
});

await run();
