// A node with --max-age 3s.
import { assert, check, pause, run, until } from "./harness.mjs";

const LIFE = 3000;

check("a session ends for HTTP and sockets alike, and sockets are told in time", async ({ seeded }) => {
  const b = await seeded();
  const written = Date.now();
  const { sessionId } = (await b.get()).json;
  const tab = await b.open();
  const told = await tab.message("session:destroy");
  const after = Date.now() - written;
  assert.equal(told.reason, "expired");
  assert.ok(after > LIFE - 500 && after < LIFE + 2000, `${after} ms`);
  assert.equal(await tab.refused("session:get"), "missing-session");
  assert.equal((await b.get()).json.session, null);
  const next = (await b.post("/session/inc")).json;
  assert.notEqual(next.sessionId, sessionId);
  assert.deepEqual(next.session, { n: 1 });
  assert.equal((await tab.ok("session:get")).sessionId, next.sessionId);
});

check("writes by socket and HTTP begin the life anew", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  const end = Date.now() + 2 * LIFE;
  let turn = 0;
  while (Date.now() < end) {
    await pause(LIFE / 3);
    turn += 1;
    if (turn % 2) await tab.ok("session:inc");
    else await b.post("/session/inc");
  }
  assert.equal((await b.get()).json.session.n, 1 + turn);
});

check("reads do not extend the life", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  await until("the end", async () => {
    await pause(200);
    const { session } = (await b.get()).json;
    return session === null && !(await tab.call("session:get")).ok;
  }, 2 * LIFE);
});

await run();
