// Browsers that go on while all nodes are restarted behind the balancer. They stop once the file `STOP`
// is there. Half of them follow the message that asks to move, the others know nothing of it.
import fs from "node:fs";
import { assert, check, inTime, pause, run, TRANSPORTS, until } from "./harness.mjs";

const { STOP: stop, READY: ready } = process.env;
const BROWSERS = 6;
const stopped = () => fs.existsSync(stop);

/** Emits as a page does, and knows which calls were answered. */
class Page {
  constructor(tab, follows) {
    Object.assign(this, { tab, acknowledged: 0, unknown: 0, moves: 0, connects: 1, doing: Promise.resolve() });
    const { socket } = tab;
    socket.on("connect", () => { this.connects += 1; });
    socket.on("session:move", () => {
      this.moves += 1;
      // What is under way is answered first.
      if (follows) this.doing.then(() => socket.disconnect().connect());
    });
    socket.on("disconnect", (why) => { this.lastly = why; });
  }

  async increment() {
    const { socket } = this.tab;
    if (!socket.connected) return pause(20);
    this.doing = socket.timeout(15_000).emitWithAck("session:inc").then((answer) => {
      if (answer.ok) this.acknowledged += 1;
      else this.unknown += 1;
    }, () => { this.unknown += 1; });
    // The answer of a call whose connection was lost never comes.
    const lost = new Promise((resolve) => { socket.once("disconnect", () => setTimeout(resolve, 50)); });
    const before = this.acknowledged + this.unknown;
    await Promise.race([this.doing, lost]);
    if (this.acknowledged + this.unknown === before) this.lost = (this.lost ?? 0) + 1;
    return pause(20);
  }
}

check("no acknowledged change and no session is lost, and no request fails", async ({ browser }) => {
  const work = async (number) => {
    const own = browser();
    await own.get("/");
    const first = await own.post("/session/inc");
    assert.equal(first.status, 200, first.text);
    const { sessionId } = first.json;
    const transport = ["websocket", "polling", "upgrade"][number % 3];
    const tab = await own.open({
      reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200, transports: TRANSPORTS[transport],
    });
    const page = new Page(tab, number % 2 === 0);
    const http = { acknowledged: 1, failed: [] };
    const requests = async () => {
      while (!stopped()) {
        const { status, json } = await own.post("/session/inc");
        if (status === 200) {
          http.acknowledged += 1;
          assert.equal(json.sessionId, sessionId, "the session was lost");
        } else http.failed.push(status);
        await pause(20);
      }
    };
    const calls = async () => {
      while (!stopped()) await page.increment();
    };
    begun += 1;
    if (begun === BROWSERS) fs.writeFileSync(ready, "");
    await Promise.all([requests(), calls()]);
    await until("the socket is back", () => tab.socket.connected);
    const last = await own.get("/session");
    assert.equal(last.json.sessionId, sessionId);
    const { n } = last.json.session;
    const { acknowledged, moves, connects } = page;
    const sure = http.acknowledged + acknowledged;
    const unsure = page.unknown + (page.lost ?? 0);
    const said = JSON.stringify({ number, transport, n, sure, unsure, moves, connects, failed: http.failed });
    console.log(said);
    assert.deepEqual(http.failed, [], said);
    assert.ok(n >= sure && n <= sure + unsure, said);
    assert.ok(acknowledged > 10 && connects > 1, said);
    return { moves };
  };
  let begun = 0;
  const all = Promise.all(Array.from({ length: BROWSERS }, (_, number) => work(number)));
  const pages = await inTime(all, "the browsers' work", 55_000);
  assert.ok(pages.some(({ moves }) => moves > 0), "no socket was asked to move");
});

await run();
