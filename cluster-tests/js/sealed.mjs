// What a login, a logout and a new id mean on two nodes: whoever has cookies of before sees, writes
// and ends nothing. The nodes have the defaults.
import { assert, Browser, check, raw, run, until } from "./harness.mjs";

const SID = "app.sid";
const CID = "app.sid.cid";
const missing = "missing-session";

/** Nobody's session is seen with these cookies, over HTTP and by a new socket at each node. */
async function opensNothing(thief, urls) {
  for (const url of urls) {
    const here = thief.clone().pinned(url);
    const answer = await here.get();
    assert.deepEqual([answer.status, answer.json.session], [200, null]);
    const tab = await thief.clone().pinned(url).open();
    for (const event of ["session:get", "session:inc", "session:destroy"]) {
      assert.equal(await tab.refused(event), missing);
    }
    tab.close();
  }
}

/** Late requests are refused, and no session cookie is touched by their answers. */
async function refusedAsLate(thief, urls) {
  for (const url of urls) {
    for (const [path, body] of [["/session/merge", { x: 1 }], ["/session/set", { x: 1 }], ["/session/inc"], ["/logout"]]) {
      const answer = await thief.clone().pinned(url).post(path, body);
      assert.equal(answer.status, 409, `${path}: ${answer.text}`);
      assert.deepEqual(answer.setCookies(SID), [], path);
    }
  }
}

/** Told that the session was sealed, and disconnected; nothing came after that. */
async function cutOff(tab, sessionId, since = 0) {
  const told = await tab.disconnected(since);
  assert.deepEqual(told.map(({ name, reason, sessionId }) => [name, reason, sessionId]),
    [["session:destroy", "sealed", sessionId]]);
}

check("a pair of cookies planted before a login opens, hears, writes and ends nothing after it", async ({ seeded, urls }) => {
  const [here, there] = urls;
  const thief = await seeded({ cart: 1 });
  const victim = thief.clone();
  const spy = await thief.pinned(there).open();
  const { sessionId: before } = await spy.ok("session:get");
  const login = await victim.pinned(here).post("/login", { user: "ann" });
  assert.deepEqual([login.status, login.json.session], [200, { cart: 1, user: "ann" }]);
  assert.notEqual(login.json.sessionId, before);
  await cutOff(spy, before);
  const late = await thief.pinned(there).open();
  await opensNothing(thief, urls);
  await refusedAsLate(thief, urls);
  const changed = await victim.pinned(there).post("/session/inc");
  assert.deepEqual([changed.status, changed.json.session], [200, { cart: 1, user: "ann", n: 1 }]);
  assert.equal(changed.json.sessionId, login.json.sessionId);
  assert.deepEqual(await late.settled(), [], "it hears nothing of the sealed session");
  const own = await victim.pinned(there).open();
  assert.equal((await own.ok("session:get")).session.user, "ann");
});

check("a socket with the client cookie alone sees an open session, and nothing of it after the login", async ({ browser, urls }) => {
  const [here, there] = urls;
  const victim = browser().pinned(here);
  await victim.get();
  const thief = victim.clone().pinned(there);
  const spy = await thief.open();
  const { sessionId: before } = (await victim.post("/session/inc")).json;
  await spy.message("session:set", 0, (m) => m.sessionId === before);
  assert.equal((await spy.ok("session:get")).sessionId, before);
  const since = spy.mark();
  assert.equal((await victim.post("/login", { user: "ann" })).status, 200);
  await cutOff(spy, before, since);
  await opensNothing(thief, urls);
});

check("a login in the first request is sealed at once: a socket that waits for it hears nothing", async ({ browser, urls }) => {
  const [here, there] = urls;
  const victim = browser().pinned(here);
  await victim.get();
  const thief = victim.clone().pinned(there);
  const spy = await thief.open();
  const login = await victim.post("/login", { user: "ann" });
  assert.deepEqual([login.status, login.json.session], [200, { user: "ann" }]);
  assert.equal(login.json.sessionId.length, 43);
  await victim.post("/session/inc");
  assert.equal(await spy.refused("session:get"), missing);
  assert.deepEqual(await spy.settled(), []);
  // A browser without any cookie may begin with it too.
  const fresh = browser();
  assert.equal((await fresh.post("/login", { user: "bob" })).status, 200);
  assert.deepEqual((await fresh.get()).json.session, { user: "bob" });
});

check("requests with the client cookie alone get a client of their own beside a sealed session", async ({ browser, urls }) => {
  const victim = browser();
  const login = (await victim.post("/login", { user: "ann" })).json;
  for (const url of urls) {
    for (const [path, body, data] of [["/session/inc", undefined, { n: 1 }], ["/login", { user: "eve" }, { user: "eve" }]]) {
      const thief = new Browser(url);
      thief.jar.set(CID, victim.jar.get(CID));
      const own = await thief.post(path, body);
      assert.deepEqual([own.status, own.json.session], [200, data]);
      assert.notEqual(own.json.clientId, login.clientId);
      assert.notEqual(own.json.sessionId, login.sessionId);
      assert.notEqual(thief.jar.get(CID), victim.jar.get(CID));
    }
  }
  const after = (await victim.get()).json;
  assert.deepEqual([after.sessionId, after.clientId, after.session], [login.sessionId, login.clientId, { user: "ann" }]);
});

check("a login with a cookie of before another login is a session of its own", async ({ seeded, urls }) => {
  const victim = await seeded({ cart: 1 });
  const late = victim.clone();
  const first = (await victim.pinned(urls[0]).post("/login", { user: "ann" })).json;
  const second = await late.pinned(urls[1]).post("/login", { user: "eve" });
  assert.deepEqual([second.status, second.json.session], [200, { user: "eve" }]);
  assert.notEqual(second.json.clientId, first.clientId);
  assert.notEqual(second.json.sessionId, first.sessionId);
  assert.deepEqual((await victim.get()).json.session, { cart: 1, user: "ann" });
  assert.deepEqual((await late.get()).json.session, { user: "eve" });
});

check("a new id is the same session: sockets of the other node follow, and the cookie before it opens it for a while", async ({ browser, urls }) => {
  const [here, there] = urls;
  const b = browser();
  const login = (await b.post("/login", { user: "ann" })).json;
  const tab = await b.pinned(there).open();
  const before = b.clone();
  const since = tab.mark();
  const renewed = await b.pinned(here).post("/session/renew");
  const { sessionId } = renewed.json;
  assert.equal(renewed.setCookies(SID).length, 1);
  assert.notEqual(sessionId, login.sessionId);
  await tab.message("session:set", since, (m) => m.sessionId === sessionId);
  assert.deepEqual((await tab.ok("session:inc")).session, { user: "ann", n: 1 });
  for (const [at, url] of urls.entries()) {
    const late = await before.clone().pinned(url).post("/session/inc");
    assert.deepEqual([late.status, late.json.session.n], [200, 2 + at]);
    assert.deepEqual(late.setCookies(SID), [], "who did not ask for the new cookie does not get it");
  }
  await until("the overlap is over", async () => (await before.clone().get()).json.session === null, 20_000);
  await refusedAsLate(before, urls);
  await opensNothing(before, urls);
  assert.deepEqual((await b.get()).json.session, { user: "ann", n: 3 });
  assert.ok(tab.socket.connected);
  assert.ok(!(await tab.settled(since)).some((m) => m.name === "session:destroy"));
});

check("the logout of a sealed session clears the cookie and gives another client id in the same answer", async ({ browser, urls }) => {
  const [here, there] = urls;
  const b = browser().pinned(here);
  const { clientId } = (await b.post("/login", { user: "ann" })).json;
  const kept = b.clone().pinned(there);
  const spy = await kept.open({ cookie: `${CID}=${kept.jar.get(CID)}` });
  const out = await b.post("/logout");
  assert.equal(out.status, 200);
  assert.equal(out.setCookies(SID).length, 1);
  assert.ok(!b.jar.has(SID));
  assert.notEqual(b.jar.get(CID), kept.jar.get(CID));
  const next = (await b.post("/session/inc")).json;
  assert.notEqual(next.clientId, clientId);
  // Whoever kept the client cookie sees nothing of the next person's session.
  assert.equal(await spy.refused("session:get"), missing);
  assert.deepEqual(await spy.settled(), []);
  assert.equal((await kept.get()).json.session, null);
});

check("the logout of an open session keeps the client id", async ({ seeded }) => {
  const b = await seeded();
  const { clientId } = (await b.get()).json;
  assert.equal((await b.post("/logout")).status, 200);
  assert.equal((await b.get()).json.clientId, clientId);
});

check("a logout tells the sockets of both nodes first, and then disconnects them", async ({ browser, seeded, urls }) => {
  const sealed = browser();
  await sealed.post("/login", { user: "ann" });
  for (const b of [sealed, await seeded()]) {
    const { sessionId } = (await b.get()).json;
    const tabs = await Promise.all(urls.map((url) => b.pinned(url).open()));
    const elsewhere = await (await seeded()).open();
    await b.pinned(urls[0]).post("/logout");
    for (const tab of tabs) {
      const told = await tab.disconnected();
      assert.deepEqual(told.map(({ name, reason, sessionId }) => [name, reason, sessionId]),
        [["session:destroy", "destroyed", sessionId]]);
    }
    assert.equal((await elsewhere.ok("session:get")).session.n, 1);
  }
});

check("a cookie that opens nothing is not cleared", async ({ seeded, urls }) => {
  const b = await seeded();
  const { sessionId } = (await b.get()).json;
  const ended = await new Browser(urls[0]).post(`/probe/destroy/${sessionId}`);
  assert.equal(ended.json, true);
  const unsigned = b.clone();
  unsigned.jar.set(SID, b.jar.get(SID).replace(/^./, (c) => (c === "A" ? "B" : "A")));
  for (const dead of [b, unsigned]) {
    for (const url of urls) {
      for (const [method, path] of [["GET", "/session"], ["POST", "/logout"], ["POST", "/session/regenerate"]]) {
        const answer = await dead.clone().pinned(url).request(method, path);
        assert.equal(answer.status, 200, `${path}: ${answer.text}`);
        assert.deepEqual(answer.setCookies(SID), [], path);
      }
    }
  }
});

check("of a dead and a living cookie the living one counts, for requests and handshakes", async ({ browser, seeded, urls }) => {
  const dead = await seeded();
  const late = await seeded();
  const superseded = late.clone();
  await late.post("/login", { user: "late" });
  const b = browser();
  const { sessionId } = (await b.post("/login", { user: "ann" })).json;
  const gone = dead.jar.get(SID);
  await dead.post("/logout");
  for (const other of [gone, superseded.jar.get(SID), "unsigned"]) {
    for (const pair of [[other, b.jar.get(SID)], [b.jar.get(SID), other]]) {
      const cookie = `${SID}=${pair[0]}; ${SID}=${pair[1]}; ${CID}=${b.jar.get(CID)}`;
      for (const url of urls) {
        const here = b.clone().pinned(url);
        assert.equal((await here.get("/session", { cookie })).json.sessionId, sessionId);
        const tab = await here.open({ cookie });
        assert.equal((await tab.ok("session:get")).sessionId, sessionId);
        tab.close();
      }
    }
  }
});

check("the id of an Engine.IO connection is of no use with the cookies of another browser", async ({ browser, seeded, urls }) => {
  const [b, thief] = [await seeded(), await seeded()];
  const empty = browser();
  const [here] = urls;
  const base = "/socket.io/?EIO=4&transport=polling";
  const opened = await b.pinned(here).get(base);
  const { sid } = JSON.parse(opened.text.slice(1));
  const path = `${base}&sid=${sid}`;
  const headers = { "content-type": "text/plain" };
  assert.equal((await b.pinned(here).post(path, "40", { headers })).status, 200);
  for (const cookie of [thief.cookies(), `${SID}=${b.jar.get(SID)}`, `${CID}=${b.jar.get(CID)}x`, empty.cookies()]) {
    const other = new Browser(here);
    // Without a header at all for the last one.
    assert.equal((await other.get(path, { cookie })).status, 403, cookie);
    assert.equal((await other.post(path, '42["session:inc"]', { cookie, headers })).status, 403, cookie);
    const key = Buffer.from("sixteen bytes ok").toString("base64");
    const upgrade = await raw(here, `GET /socket.io/?EIO=4&transport=websocket&sid=${sid} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${key}\r\n${cookie ? `cookie: ${cookie}\r\n` : ""}\r\n`);
    assert.match(upgrade, /^HTTP\/1.1 403/, cookie);
  }
  assert.equal((await b.pinned(here).post(path, '420["session:inc"]', { headers })).status, 200);
  const text = await until("the answer is polled", async () => {
    const polled = await b.pinned(here).get(path);
    assert.equal(polled.status, 200);
    return /430\[.*/.exec(polled.text)?.[0];
  });
  assert.match(text, /"n":2/);
});

await run();
