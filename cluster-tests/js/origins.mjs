// Pages of other origins in a real browser: on another port of the node's host, and on another site.
// With FOREIGN_PORT the node lets that one in.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { assert, check, run, until } from "./harness.mjs";

const { CHROMIUM_PATH: executablePath, FOREIGN_PORT: allowed } = process.env;
const client = new URL("node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url);

/** A form whose body is JSON: it needs no script and no leave. */
const form = (target) => `<form method="post" enctype="text/plain" action="${target}">
  <input name='{"user":"eve","x":"' value='"}'></form>`;

/** A server of somebody else's: a page with the real client, and forms that go where `to` says. */
async function foreign(port = 0) {
  const server = createServer((request, answer) => {
    const url = new URL(request.url, "http://x");
    if (url.pathname === "/client.js") {
      answer.setHeader("content-type", "text/javascript");
      return answer.end(readFileSync(client));
    }
    answer.setHeader("content-type", "text/html");
    answer.end(`<!doctype html><link rel="icon" href="data:,"><script src="client.js"></script>${form(url.searchParams.get("to") ?? "")}`);
  });
  await new Promise((ready) => server.listen(port, ready));
  return { port: server.address().port, close: () => { server.closeAllConnections(); server.close(); } };
}

/** A victim who is logged in at the node, and a foreign page in the same browser. */
async function together(node, host, see) {
  const server = await foreign(allowed ? Number(allowed) : 0);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(node);
    const ask = (method, path, body) => page.evaluate(async ([method, path, body]) => {
      const answer = await fetch(path, { method, body, cache: "no-store" });
      return { status: answer.status, json: await answer.json() };
    }, [method, path, body && JSON.stringify(body)]);
    const login = await ask("POST", "/login", { user: "ann" });
    assert.equal(login.status, 200);
    const cookies = async () => Object.fromEntries((await context.cookies(node)).map(({ name, value }) => [name, value]));
    const theirs = await context.newPage();
    theirs.setDefaultTimeout(15_000);
    // What the node answered to the foreign page, which may not read it.
    const [asked, answered] = [new Map(), new Map()];
    const network = await context.newCDPSession(theirs);
    await network.send("Network.enable");
    network.on("Network.requestWillBeSent", ({ requestId, request }) => asked.set(requestId, request));
    for (const event of ["Network.responseReceivedExtraInfo", "Network.responseReceived"]) {
      network.on(event, ({ requestId, statusCode, response }) => answered.set(requestId, statusCode ?? response.status));
    }
    /** The answer to the last request of this kind. */
    const status = (method, path) => until(`the answer to ${method} ${path}`, () => {
      const ids = [...asked.keys()].filter((id) => asked.get(id).method === method && asked.get(id).url === node + path);
      return answered.get(ids.at(-1));
    });
    const origin = `http://${host}:${server.port}`;
    await see({
      origin, theirs, status, cookies, before: await cookies(),
      session: async () => (await ask("GET", "/session")).json,
      login: login.json,
    });
  } finally {
    await browser.close();
    server.close();
  }
}

/** Whether a socket of the foreign page connects, and what it sees then. */
const connect = (page, node, transport) => page.evaluate(async ([node, transport]) => {
  const socket = window.io(node, { transports: [transport], withCredentials: true, forceNew: true, reconnection: false, timeout: 8000 });
  const came = await new Promise((done) => {
    socket.once("connect", () => done("connected"));
    socket.once("connect_error", () => done("refused"));
  });
  const seen = came === "connected" ? await socket.timeout(5000).emitWithAck("session:get") : null;
  socket.close();
  return { came, seen };
}, [node, transport]);

/** What a fetch with credentials came to, as far as the page may know. */
const send = (page, method, url, mode, body) => page.evaluate(async ([method, url, mode, body]) => {
  try {
    const answer = await fetch(url, { method, mode, body, credentials: "include" });
    return answer.type;
  } catch (error) {
    return error.name;
  }
}, [method, url, mode, body]);

async function unharmed({ session, login, cookies, before }) {
  const now = await session();
  assert.deepEqual([now.sessionId, now.clientId, now.session], [login.sessionId, login.clientId, { user: "ann" }]);
  const { "app.sid": sid, "app.sid.cid": cid } = await cookies();
  assert.deepEqual([sid, cid], [before["app.sid"], before["app.sid.cid"]], "its cookies are the same");
}

const evil = JSON.stringify({ user: "eve" });

if (allowed) {
  check("a page of an origin that is let in posts and connects", async ({ urls: [node] }) => {
    await together(node, "127.0.0.1", async (world) => {
      const { theirs, origin, status, session, login } = world;
      await theirs.goto(`${origin}/`);
      await send(theirs, "POST", `${node}/session/merge`, "no-cors", JSON.stringify({ note: 1 }));
      assert.equal(await status("POST", "/session/merge"), 200);
      assert.deepEqual((await session()).session, { user: "ann", note: 1 });
      const socket = await connect(theirs, node, "websocket");
      assert.equal(socket.came, "connected");
      assert.equal(socket.seen.sessionId, login.sessionId);
    });
  });
} else {
  check("a page on another port of the same host can neither write nor connect", async ({ urls: [node] }) => {
    await together(node, "127.0.0.1", async (world) => {
      const { theirs, origin, status } = world;
      await theirs.goto(`${origin}/`);
      for (const mode of ["cors", "no-cors"]) {
        for (const path of ["/session/set", "/session/merge", "/session/inc", "/session/regenerate", "/login", "/logout"]) {
          const came = await send(theirs, "POST", `${node}${path}`, mode, evil);
          assert.equal(came, mode === "cors" ? "TypeError" : "opaque", path);
          assert.equal(await status("POST", path), 403, `${mode} ${path}`);
          await unharmed(world);
        }
      }
      for (const transport of ["websocket", "polling"]) {
        assert.deepEqual(await connect(theirs, node, transport), { came: "refused", seen: null }, transport);
      }
      const opened = await theirs.evaluate((url) => new Promise((done) => {
        const socket = new WebSocket(url);
        socket.onopen = () => done(true);
        socket.onerror = () => done(false);
      }), `${node.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
      assert.equal(opened, false, "a bare websocket");
      await unharmed(world);
    });
  });

  check("a page on another port that reads without leave learns and changes nothing", async ({ urls: [node] }) => {
    await together(node, "127.0.0.1", async (world) => {
      const { theirs, origin, status } = world;
      await theirs.goto(`${origin}/`);
      assert.equal(await send(theirs, "GET", `${node}/session`, "no-cors"), "opaque");
      assert.equal(await status("GET", "/session"), 200);
      assert.equal(await send(theirs, "GET", `${node}/session`, "cors"), "TypeError");
      await unharmed(world);
    });
  });

  check("a form of another site neither sets nor replaces a session", async ({ urls: [node] }) => {
    for (const path of ["/session/set", "/session/merge", "/login", "/logout"]) {
      await together(node, "localhost", async (world) => {
        const { theirs, origin } = world;
        await theirs.goto(`${origin}/?to=${encodeURIComponent(node + path)}`);
        const [answer] = await Promise.all([
          theirs.waitForResponse((response) => response.url() === node + path),
          theirs.evaluate(() => document.querySelector("form").submit()),
        ]);
        assert.equal(answer.request().method(), "POST");
        assert.equal(answer.status(), 403, path);
        assert.equal((await answer.allHeaders())["set-cookie"], undefined, path);
        await unharmed(world);
      });
    }
  });

  check("a form of the node's own page is not refused", async ({ urls: [node] }) => {
    await together(node, "localhost", async ({ theirs, session }) => {
      await theirs.goto(`${node}/session`);
      const [answer] = await Promise.all([
        theirs.waitForResponse((response) => response.url() === `${node}/session/merge`),
        theirs.evaluate((form) => {
          document.body.innerHTML = form;
          document.querySelector("form").submit();
        }, form(`${node}/session/merge`)),
      ]);
      assert.equal(answer.status(), 200);
      assert.equal((await session()).session.user, "eve");
    });
  });
}

await run();
