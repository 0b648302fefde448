// Options that say which sessions a socket sees, on two nodes. `SCENE` names the flags of the nodes.
import { assert, check, idIn, run } from "./harness.mjs";

const SID = "app.sid";
const missing = "missing-session";
const names = (messages) => messages.map((message) => message.name);
/** A handshake with the client cookie alone. */
const half = (b) => ({ cookie: `app.sid.cid=${b.jar.get("app.sid.cid")}` });

const scenes = {
  strict: {
    async "a page's first session needs a reconnect"({ browser, urls: [here, there] }) {
      const b = browser();
      await b.get();
      const tab = await b.pinned(there).open();
      const { sessionId } = (await b.pinned(here).post("/session/inc")).json;
      for (const event of ["session:get", "session:inc", "session:destroy"]) {
        assert.equal(await tab.refused(event), missing);
      }
      assert.deepEqual(await tab.settled(), [], "not even a message");
      const paired = await b.pinned(there).open();
      assert.equal((await paired.ok("session:inc")).sessionId, sessionId);
    },
    async "the client cookie alone hears nothing of an open session"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const spy = await b.pinned(there).open(half(b));
      const tab = await b.pinned(there).open();
      await b.pinned(here).post("/session/inc");
      await tab.message("session:set");
      assert.equal(await spy.refused("session:get"), missing);
      assert.deepEqual(await spy.settled(), []);
    },
    async "a new id is followed, and a login is not"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const tab = await b.pinned(there).open();
      const { sessionId } = (await b.pinned(here).post("/session/renew")).json;
      await tab.message("session:set", 0, (m) => m.sessionId === sessionId);
      assert.equal((await tab.ok("session:get")).sessionId, sessionId);
      await b.pinned(here).post("/login", { user: "ann" });
      const told = await tab.disconnected();
      assert.deepEqual(names(told), ["session:set", "session:destroy"]);
      assert.deepEqual([told[1].reason, told[1].sessionId], ["sealed", sessionId]);
    },
  },
  client: {
    async "a socket with the client cookie alone sees open and sealed sessions"({ browser, urls: [here, there] }) {
      const b = browser().pinned(here);
      await b.get();
      const spy = await b.pinned(there).open(half(b));
      const login = (await b.post("/login", { user: "ann" })).json;
      await spy.message("session:set", 0, (m) => m.sessionId === login.sessionId);
      assert.deepEqual((await spy.ok("session:inc")).session, { user: "ann", n: 1 });
      const later = await b.pinned(there).open(half(b));
      assert.equal((await later.ok("session:get")).sessionId, login.sessionId);
      assert.deepEqual((await b.get()).json.session, { user: "ann", n: 1 });
    },
    async "over HTTP the client cookie opens nothing"({ browser, urls: [here, there] }) {
      const b = browser().pinned(here);
      await b.post("/login", { user: "ann" });
      const thief = b.clone().pinned(there);
      thief.jar.delete(SID);
      assert.equal((await thief.get()).json.session, null);
      const own = await thief.post("/session/inc");
      assert.deepEqual(own.json.session, { n: 1 });
      assert.deepEqual((await b.get()).json.session, { user: "ann" });
    },
    async "a login cuts the sockets of the session before it"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const { sessionId } = (await b.get()).json;
      const tab = await b.pinned(there).open();
      await b.pinned(here).post("/login", { user: "ann" });
      const told = await tab.disconnected();
      assert.deepEqual([told[0].name, told[0].reason, told[0].sessionId], ["session:destroy", "sealed", sessionId]);
    },
  },
  "from-start": {
    async "a session that nobody logged into is seen with its own cookie only"({ browser, urls: [here, there] }) {
      const b = browser().pinned(here);
      await b.get();
      const spy = await b.pinned(there).open();
      const { sessionId } = (await b.post("/session/inc")).json;
      assert.equal(await spy.refused("session:get"), missing);
      assert.deepEqual(await spy.settled(), []);
      const paired = await b.pinned(there).open();
      assert.equal((await paired.ok("session:inc")).sessionId, sessionId);
      const { clientId } = (await b.get()).json;
      await b.post("/logout");
      assert.notEqual((await b.get()).json.clientId, clientId, "its logout gives a new client id");
    },
    async "first requests at once get a session and a client each"({ browser }) {
      for (let round = 0; round < 10; round += 1) {
        const b = browser();
        await b.get();
        const tabs = Array.from({ length: 6 }, () => b.clone());
        const answers = await Promise.all(tabs.map((tab, n) => tab.post("/session/merge", { [`k${n}`]: n })));
        for (const answer of answers) assert.equal(answer.status, 200, answer.text);
        assert.equal(new Set(tabs.map((tab) => idIn(tab.jar.get(SID)))).size, tabs.length);
        const seen = await Promise.all(tabs.map((tab) => tab.get()));
        assert.equal(new Set(seen.map(({ json }) => json.clientId)).size, tabs.length);
        seen.forEach(({ json }, n) => assert.deepEqual(json.session, { [`k${n}`]: n }));
      }
    },
  },
  follow: {
    async "a socket of the other node goes on with the sealed session, and is told"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const tab = await b.pinned(there).open();
      const login = (await b.pinned(here).post("/login", { user: "ann" })).json;
      const told = await tab.message("session:set");
      assert.deepEqual([told.sessionId, told.isNew, told.isInit], [login.sessionId, false, true]);
      const answer = await tab.ok("session:inc");
      assert.deepEqual([answer.sessionId, answer.session], [login.sessionId, { n: 2, user: "ann" }]);
      assert.ok(!names(await tab.settled()).includes("session:destroy"));
    },
    async "a socket that came without the session's cookie does not follow"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const spy = await b.pinned(there).open(half(b));
      await b.pinned(here).post("/login", { user: "ann" });
      await b.pinned(here).post("/session/inc");
      assert.equal(await spy.refused("session:get"), missing);
      assert.deepEqual(await spy.settled(), []);
    },
    async "a logout still tells and disconnects it"({ seeded, urls: [here, there] }) {
      const b = await seeded();
      const tab = await b.pinned(there).open();
      const { sessionId } = (await b.pinned(here).post("/login", { user: "ann" })).json;
      await tab.message("session:set");
      const since = tab.mark();
      await b.pinned(here).post("/logout");
      const told = await tab.disconnected(since);
      assert.deepEqual(told.map((m) => [m.name, m.reason, m.sessionId]), [["session:destroy", "destroyed", sessionId]]);
    },
  },
};

for (const [sentence, body] of Object.entries(scenes[process.env.SCENE])) check(sentence, body);
await run();
