// Part "before" makes a session and keeps its cookies in a file; part "after" uses them on the
// next process.
import fs from "node:fs";
import { assert, Browser, check, run } from "./harness.mjs";

const [part, file] = process.argv.slice(-2);

if (part === "before") {
  check("a session is made and acknowledged", async ({ seeded }) => {
    const b = await seeded({ n: 41 });
    const { json } = await b.get();
    fs.writeFileSync(file, JSON.stringify({ jar: [...b.jar], json }));
  });
} else {
  check("the session is there after the node was killed, and its first use is told", async ({ urls }) => {
    const { jar, json } = JSON.parse(fs.readFileSync(file, "utf8"));
    const b = new Browser(urls);
    b.jar = new Map(jar);
    // The handshake does not come first here: what is told is the first use over HTTP.
    const other = new Browser(urls);
    await other.get();
    const half = await b.open({ cookie: `app.sid.cid=${b.jar.get("app.sid.cid")}` });
    assert.equal(await half.refused("session:get"), "missing-session");
    const seen = (await b.get()).json;
    assert.deepEqual([seen.clientId, seen.sessionId, seen.session], [json.clientId, json.sessionId, { n: 41 }]);
    const tab = await b.open();
    assert.deepEqual((await tab.ok("session:inc")).session, { n: 42 });
    const told = await tab.message("session:set");
    assert.deepEqual([told.isNew, told.isInit], [false, false]);
  });
}

await run();
