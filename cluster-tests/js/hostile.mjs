// Cookies and bodies that no honest browser sends.
import { assert, check, inTime, raw, run } from "./harness.mjs";

/** Not a server's fault, and not somebody's session. */
async function notAdopted(b, cookie, what) {
  const answer = await b.clone().get("/session", { cookie });
  assert.ok(answer.status < 500, `${what}: ${answer.status}`);
  if (answer.status === 200) assert.equal(answer.json.session, null, what);
  return answer;
}

check("changed, swapped, cut and stretched session cookies open nothing", async ({ seeded }) => {
  const b = await seeded();
  const [sid, cid] = [b.jar.get("app.sid"), b.jar.get("app.sid.cid")];
  const flip = (text, at) => text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
  const values = {
    empty: "", swapped: cid, unsigned: sid.slice(44), padded: `${sid}=`, doubled: sid + sid,
    upper: sid.toUpperCase(), encoded: encodeURIComponent(sid).replace(/%/, "%25"), huge: "A".repeat(5000),
    proto: "__proto__", star: "*", path: "../../etc/passwd",
  };
  for (const at of [0, 20, 43, 44, 60, sid.length - 1]) values[`flipped at ${at}`] = flip(sid, at);
  for (const cut of [1, 43, 44, sid.length - 1]) values[`cut to ${cut}`] = sid.slice(0, cut);
  for (const [what, value] of Object.entries(values)) {
    await notAdopted(b, `app.sid=${value}; app.sid.cid=${cid}`, what);
  }
  assert.deepEqual((await b.get()).json.session, { n: 1 }, "the session is unharmed");
});

check("a changed or swapped client cookie is another client", async ({ seeded }) => {
  const b = await seeded();
  const { clientId } = (await b.get()).json;
  const [sid, cid] = [b.jar.get("app.sid"), b.jar.get("app.sid.cid")];
  for (const value of [sid, cid.slice(44), `${cid}x`, "", "x".repeat(68)]) {
    const answer = await b.clone().get("/session", { cookie: `app.sid.cid=${value}` });
    assert.equal(answer.status, 200);
    assert.notEqual(answer.json.clientId, clientId);
  }
});

check("of several cookies of one name the first that verifies counts", async ({ seeded }) => {
  const [a, b] = [await seeded({ who: "a" }), await seeded({ who: "b" })];
  const [one, two] = [a.jar.get("app.sid"), b.jar.get("app.sid")];
  for (const [cookie, who] of [
    [`app.sid=${one}; app.sid=${two}`, "a"], [`app.sid=bad; app.sid=${two}; app.sid=${one}`, "b"],
    [`app.sid=${one}; app.sid=bad`, "a"],
  ]) {
    assert.equal((await a.clone().get("/session", { cookie })).json.session.who, who, cookie);
  }
});

check("ours is found between junk, a thousand cookies and raw bytes", async ({ seeded, urls }) => {
  const b = await seeded();
  const ours = b.cookies();
  const many = Array.from({ length: 1000 }, (_, n) => `c${n}=${n}`).join("; ");
  for (const cookie of [`;;; =x; nameless; ${ours};;`, `${many}; ${ours}`, `pad=${"x".repeat(8192)}; ${ours}`, `a="q;${ours}`]) {
    const answer = await b.clone().get("/session", { cookie });
    assert.deepEqual(answer.json?.session, { n: 1 }, `${answer.status} ${cookie.slice(0, 30)}`);
    const tab = await b.clone().open({ cookie });
    assert.deepEqual((await tab.ok("session:get")).session, { n: 1 });
    tab.close();
  }
  const bytes = Buffer.concat([
    Buffer.from("GET /session HTTP/1.1\r\nhost: x\r\ncookie: a="), Buffer.from([0xff, 0xfe, 0x80]),
    Buffer.from(`; \xe9=1; ${ours}\r\ncookie: other=1\r\nconnection: close\r\n\r\n`, "latin1"),
  ]);
  const answer = await raw(urls[0], bytes);
  assert.match(answer, /^HTTP\/1.1 200/);
  assert.match(answer, /"n":1/);
  const two = await raw(urls[0], `GET /session HTTP/1.1\r\nhost: x\r\ncookie: ${ours.split("; ")[0]}\r\ncookie: ${ours.split("; ")[1]}\r\nconnection: close\r\n\r\n`);
  assert.match(two, /"n":1/);
});

check("a cookie header beyond all limits is refused and the node lives", async ({ seeded, urls }) => {
  const b = await seeded();
  for (const [size, allowed] of [[65_536, /^HTTP\/1.1 (200|4)/], [2_000_000, /^(HTTP\/1.1 4|$)/]]) {
    const answer = await raw(urls[0], `GET /session HTTP/1.1\r\nhost: x\r\ncookie: a=${"x".repeat(size)}\r\nconnection: close\r\n\r\n`);
    assert.match(answer, allowed, `${size} bytes`);
  }
  const lines = Array.from({ length: 3000 }, (_, n) => `x-${n}: 1\r\n`).join("");
  assert.match(await raw(urls[0], `GET /session HTTP/1.1\r\nhost: x\r\n${lines}\r\n`), /^(HTTP\/1.1 4|$)/, "3000 lines");
  assert.deepEqual((await b.get()).json.session, { n: 1 });
});

check("bodies that are no JSON object are refused and change nothing", async ({ seeded }) => {
  const b = await seeded();
  const bodies = ["", "{", "nonsense", "[1]", "1", "null", "true", '"x"', '{"a":1}x', '{"a":NaN}', Buffer.from([0x7b, 0xff, 0x7d]), '{"a":"\\ud800"}'];
  for (const path of ["/session/set", "/session/merge"]) {
    for (const body of bodies) {
      const { status } = await b.post(path, body);
      assert.ok(status >= 400 && status < 500, `${path} ${body}: ${status}`);
    }
  }
  assert.deepEqual((await b.get()).json.session, { n: 1 });
});

check("any text comes back exactly", async ({ seeded }) => {
  const data = { "": "empty key", "é漢😀": "\u0000\u2028\u2029\"\\", n: -0.1, big: 2 ** 53, deep: [[], {}, null, false] };
  const b = await seeded();
  assert.deepEqual((await b.post("/session/set", data)).json.session, data);
  const tab = await b.open();
  assert.deepEqual((await tab.ok("session:get")).session, data);
  assert.deepEqual((await tab.ok("session:set", { ...data, again: true })).session, { ...data, again: true });
});

check("half a character from a socket is refused or cut, and the session is unharmed", async ({ seeded }) => {
  const b = await seeded();
  const tab = await b.open();
  const cut = new Promise((done) => tab.socket.once("disconnect", () => done("cut")));
  const answer = await inTime(Promise.race([tab.call("session:set", { a: "x\ud800y" }), cut]), "an answer");
  assert.ok(answer === "cut" || answer.ok === false, JSON.stringify(answer));
  assert.deepEqual((await b.get()).json.session, { n: 1 });
  assert.deepEqual((await (await b.open()).ok("session:inc")).session, { n: 2 });
});

check("no key has a meaning", async ({ seeded }) => {
  const text = '{"__proto__":{"polluted":1},"constructor":{"prototype":1},"toJSON":1,"isNew":1,"maxAge":1,"max_age":1,"_expire":1,"_x":1,"ttl":0,"save":"s","length":3}';
  const b = await seeded();
  assert.equal((await b.post("/session/set", text)).status, 200);
  const answer = await b.get();
  for (const key of ["__proto__", "constructor", "toJSON", "isNew", "maxAge", "_expire", "ttl", "save", "length"]) {
    assert.ok(Object.hasOwn(answer.json.session, key), key);
  }
  assert.equal({}.polluted, undefined);
  assert.deepEqual((await b.post("/session/merge", { n: 2 })).json.session.n, 2);
});

check("60 levels are kept, 20,000 are refused", async ({ seeded }) => {
  const nest = (levels) => `{"deep":${"[".repeat(levels - 1)}1${"]".repeat(levels - 1)}}`;
  const b = await seeded();
  assert.equal((await b.post("/session/set", nest(60))).status, 200);
  const tab = await b.open();
  assert.equal(JSON.stringify((await tab.ok("session:get")).session), nest(60));
  await tab.ok("session:set", JSON.parse(nest(60)));
  for (const levels of [110, 200, 20_000]) {
    const { status } = await b.post("/session/set", nest(levels));
    assert.ok(status >= 400 && status < 500, `${levels}: ${status}`);
  }
  assert.equal((await b.get()).text.includes(nest(60)), true);
});

check("a socket that sends 110 or 20,000 levels is refused or cut, and the session is unharmed", async ({ seeded }) => {
  const b = await seeded();
  for (const levels of [110, 200, 20_000]) {
    const tab = await b.open();
    const cut = new Promise((done) => tab.socket.once("disconnect", () => done("cut")));
    // The client's own encoder could not nest as deep.
    const deep = `{"deep":${"[".repeat(levels - 1)}1${"]".repeat(levels - 1)}}`;
    tab.socket.io.engine.write(`42["session:set",${deep}]`);
    await inTime(Promise.race([tab.call("session:get"), cut]), `${levels} levels`);
    assert.deepEqual((await b.get()).json.session, { n: 1 }, `${levels} levels`);
  }
  const tab = await b.open();
  assert.deepEqual((await tab.ok("session:inc")).session, { n: 2 });
});

check("900 kB are kept, 8 MB are refused, and the node lives", async ({ seeded }) => {
  const b = await seeded();
  const big = { s: "x".repeat(900_000) };
  assert.equal((await b.post("/session/set", big)).status, 200);
  assert.deepEqual((await b.get()).json.session, big);
  const refused = await b.post("/session/set", { s: "x".repeat(8_000_000) }).then(({ status }) => status, () => "cut");
  assert.ok(refused === "cut" || (refused >= 400 && refused < 500), String(refused));
  const tab = await b.open();
  const gone = new Promise((done) => tab.socket.once("disconnect", done));
  tab.socket.emit("session:set", { s: "y".repeat(5_000_000) });
  await inTime(gone, "the socket is cut");
  assert.deepEqual((await b.get()).json.session, big);
});

await run();
