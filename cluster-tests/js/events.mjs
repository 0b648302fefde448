// What sockets are told.
import { assert, check, run } from "./harness.mjs";

const names = (messages) => messages.map((message) => message.name);

check("a created session is told as new, a changed one as changed", async ({ browser }) => {
  const b = browser();
  await b.get();
  const tab = await b.open();
  const { sessionId, node } = (await b.post("/session/inc")).json;
  const later = (await b.post("/session/inc")).json.node;
  await tab.message("session:set", 1);
  assert.deepEqual(await tab.settled(), [
    { name: "session:set", sessionId, node, isNew: true, isInit: true },
    { name: "session:set", sessionId, node: later, isNew: false, isInit: false },
  ]);
});

check("each change reaches all tabs once, the writer's too, when it can be read", async ({ seeded }) => {
  const b = await seeded();
  const tabs = [await b.open(), await b.open(), await b.open()];
  let readable = Promise.resolve();
  tabs[1].socket.once("session:set", () => {
    readable = b.get().then(({ json }) => assert.equal(json.session.n, 2));
  });
  await tabs[0].ok("session:inc");
  for (const tab of tabs) {
    await tab.message("session:set");
    assert.deepEqual(names(await tab.settled()), ["session:set"]);
  }
  await readable;
  await b.post("/session/merge", { x: 1 });
  await tabs[2].ok("session:destroy");
  for (const tab of tabs) {
    await tab.message("session:destroy");
    assert.deepEqual(names(await tab.settled()), ["session:set", "session:set", "session:destroy"]);
  }
});

check("other clients hear nothing", async ({ seeded }) => {
  const [a, b] = [await seeded(), await seeded()];
  const stranger = await b.open();
  const tab = await a.open();
  await tab.ok("session:inc");
  await a.post("/session/regenerate");
  await a.post("/logout");
  await tab.message("session:destroy");
  assert.deepEqual(await stranger.settled(), []);
});

check("reads, failures and writes without a change tell nothing", async ({ seeded }) => {
  const b = await seeded({ a: { x: 1, y: 2 } });
  const tab = await b.open();
  await b.get();
  await b.post("/session/merge", { a: { y: 2, x: 1 } });
  await tab.ok("session:get");
  await tab.ok("session:set", { a: { y: 2, x: 1 } });
  await tab.refused("session:throw");
  await tab.refused("session:set", [1]);
  await b.post("/session/set", "[1]");
  assert.deepEqual(await tab.settled(), []);
});

check("messages of one session come in the order of the changes", async ({ seeded }) => {
  const b = await seeded({ n: 0 });
  const [writer, reader] = [await b.open(), await b.open()];
  const since = reader.mark();
  for (let n = 0; n < 10; n += 1) await writer.ok("session:inc");
  await b.post("/session/regenerate");
  await b.post("/logout");
  const expected = [...Array(11).fill("session:set"), "session:destroy"];
  await reader.message("session:destroy", since);
  assert.deepEqual(names(await reader.settled(since)), expected);
});

check("ending a session twice tells once", async ({ seeded }) => {
  const b = await seeded();
  const [one, two] = [await b.open(), await b.open()];
  await Promise.all([one.call("session:destroy"), two.call("session:destroy"), b.clone().post("/logout")]);
  for (const tab of [one, two]) {
    await tab.message("session:destroy");
    assert.deepEqual(names(await tab.settled()), ["session:destroy"]);
  }
});

await run();
