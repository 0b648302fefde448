// A node with --lease 2s.
import { assert, check, run } from "./harness.mjs";

check("a handler slower than the lease is renewed, and every write is counted", async ({ seeded }) => {
  const b = await seeded();
  const [slow, other] = [await b.open(), await b.open()];
  const begun = slow.ok("session:slow", 4500);
  const counted = other.ok("session:inc");
  const answers = await Promise.all([begun, counted]);
  assert.deepEqual(answers.map((answer) => answer.session.n).sort(), [2, 3]);
  assert.deepEqual((await b.get()).json.session, { n: 3 });
});

check("an HTTP write beside a slow handler is merged", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  const slow = tab.ok("session:slow", 2500);
  await b.post("/session/merge", { beside: true });
  await slow;
  assert.deepEqual((await b.get()).json.session, { n: 2, beside: true });
});

await run();
