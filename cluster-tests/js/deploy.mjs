// Browsers that know only the load balancer. `TRANSPORT` says how sockets connect, `DOWN` names a
// node that is dead, and `NODES` how many are alive.
import { assert, check, run, until } from "./harness.mjs";

const { TRANSPORT: transport, DOWN: down } = process.env;
const alive = Number(process.env.NODES);

/** A browser with a session of its own, which counts in `n`. */
async function counting({ browser }) {
  const own = browser();
  await own.get("/");
  const first = await own.post("/session/inc");
  assert.equal(first.status, 200, first.text);
  return own;
}

check("HTTP goes to all nodes, and all have one session", async (context) => {
  const browser = await counting(context);
  const nodes = new Set();
  for (let n = 2; n <= 13; n += 1) {
    const { status, json, text } = await browser.post("/session/inc");
    assert.equal(status, 200, text);
    assert.equal(json.session.n, n);
    nodes.add(json.node);
  }
  assert.equal(nodes.size, alive, [...nodes].join());
  assert.ok(!nodes.has(down));
});

check("sockets are spread over nodes, and each stays on its own", async (context) => {
  const nodes = new Set();
  // A client's node is a matter of chance; that 16 share one is not.
  for (let n = 0; n < 16; n += 1) {
    const browser = await counting(context);
    const tab = await until("a socket connects", () => browser.open().catch(() => null));
    const { node } = await tab.ok("session:get");
    for (let again = 0; again < 4; again += 1) assert.equal((await tab.ok("session:get")).node, node);
    nodes.add(node);
  }
  assert.ok(nodes.size > 1 && !nodes.has(down), [...nodes].join());
});

check("a socket and HTTP on another node have one session", async (context) => {
  const browser = await counting(context);
  const tab = await until("a socket connects", () => browser.open().catch(() => null));
  const { node } = await tab.ok("session:get");
  assert.equal((await tab.ok("session:inc")).session.n, 2);
  const elsewhere = async (path) => {
    const mark = tab.mark();
    const answer = await browser.post(path);
    return answer.json.node === node ? null : { mark, answer };
  };
  const { mark, answer } = await until("HTTP meets another node", () => elsewhere("/session/inc"));
  const told = await tab.message("session:set", mark, (message) => message.node === answer.json.node);
  assert.equal(told.sessionId, answer.json.sessionId);
  assert.equal((await tab.ok("session:get")).session.n, answer.json.session.n);
  const before = tab.mark();
  assert.equal((await browser.post("/logout")).status, 200);
  assert.equal((await tab.message("session:destroy", before)).reason, "destroyed");
});

check(`sockets connect by ${transport}`, async (context) => {
  const browser = await counting(context);
  const tab = await until("a socket connects", () => browser.open().catch(() => null));
  const now = () => tab.socket.io.engine.transport.name;
  if (transport === "upgrade") await until("the upgrade", () => now() === "websocket");
  else assert.equal(now(), transport);
  await tab.ok("session:inc");
});

check("pages for operators are not there", async ({ browser }) => {
  for (const path of ["/livez", "/readyz", "/healthz", "/metrics", "/monitor", "/monitor/stats", "/monitor/nodes", "/monitor?x", "/metrics/"]) {
    const answer = await browser().get(path);
    assert.equal(answer.status, 404, path);
    assert.doesNotMatch(answer.text, /node/, path);
  }
});

check("a browser can't claim that it came by https", async ({ browser }) => {
  const answer = await browser().get("/session", { headers: { "x-forwarded-proto": "https" } });
  const [cookie] = answer.setCookies("app.sid.cid");
  assert.doesNotMatch(cookie, /Secure/i);
});

await run();
