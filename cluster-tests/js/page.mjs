// The page in a real browser: two tabs of one profile, and a second profile.
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { assert, Browser, check, run } from "./harness.mjs";

const executablePath = process.env.CHROMIUM_PATH;

async function open(context, url, problems) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
  });
  await page.goto(url);
  await shows(page, "#state", /^connected by/);
  return page;
}

async function shows(page, selector, expected) {
  const pattern = expected instanceof RegExp ? expected.source : `^${expected}$`;
  const matches = ({ selector, pattern }) =>
    new RegExp(pattern).test(document.querySelector(selector).textContent);
  await page.waitForFunction(matches, { selector, pattern });
}

const text = (page, selector) => page.textContent(selector);

check("tabs of one profile agree, another profile has its own session", async ({ urls }) => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const problems = [];
  try {
    const [mine, theirs] = [await browser.newContext(), await browser.newContext()];
    const one = await open(mine, urls[0], problems);
    const two = await open(mine, urls[0], problems);
    const other = await open(theirs, urls[0], problems);
    await shows(one, "#session", "none");
    for (const page of [one, two]) await shows(page, "#socket-node", await text(page, "#node"));

    await one.click("#inc-http");
    for (const page of [one, two]) await shows(page, "#count", "1");
    await two.click("#inc-socket");
    for (const page of [one, two]) await shows(page, "#count", "2");
    await other.click("#inc-http");
    await shows(other, "#count", "1");
    await one.click("#inc-socket");
    for (const page of [one, two]) await shows(page, "#count", "3");
    await shows(other, "#count", "1");
    assert.equal(await text(one, "#session"), await text(two, "#session"));
    assert.equal(await text(one, "#client"), await text(two, "#client"));
    assert.notEqual(await text(one, "#client"), await text(other, "#client"));

    const before = await text(one, "#session");
    await one.click("#rotate");
    await two.waitForFunction((old) => document.querySelector("#session").textContent !== old, before);
    await shows(two, "#count", "3");

    await one.click("#logout");
    for (const page of [one, two]) await shows(page, "#session", "none");
    await shows(two, "#events", /session:destroy.*destroyed/);
    await shows(other, "#count", "1");

    await two.click("#inc-http");
    await shows(one, "#count", "1");
    await two.click("#logout-socket");
    await shows(one, "#session", "none");
    assert.deepEqual(problems, []);
  } finally {
    await browser.close();
  }
});

check("tabs go through login, sealing, a new id and logout, and their sockets come back by themselves", async ({ urls }) => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const problems = [];
  try {
    const context = await browser.newContext();
    const one = await open(context, urls[0], problems);
    const two = await open(context, urls.at(-1), problems);
    const tabs = [one, two];
    let count = 0;
    // Each tab's own socket sees the session, and both hear of it.
    const bothWork = async () => {
      for (const page of tabs) {
        await shows(page, "#state", /^connected by/);
        await page.click("#inc-socket");
        count += 1;
        for (const each of tabs) await shows(each, "#count", String(count));
      }
    };
    const changed = async (button) => {
      const before = await text(one, "#session");
      await one.click(button);
      for (const page of tabs) {
        await page.waitForFunction((old) => document.querySelector("#session").textContent !== old, before);
      }
    };
    await one.click("#inc-http");
    count = 1;
    for (const page of tabs) await shows(page, "#count", "1");
    await bothWork();
    for (const button of ["#login", "#rotate"]) {
      await changed(button);
      for (const page of tabs) await shows(page, "#events", /session:destroy.*sealed/);
      await bothWork();
    }
    await changed("#renew");
    await bothWork();
    await shows(two, "#data", /"user":"you"/);

    const client = await text(one, "#client");
    await one.click("#logout");
    for (const page of tabs) {
      await shows(page, "#session", "none");
      await page.waitForFunction((old) => document.querySelector("#client").textContent !== old, client);
    }
    await one.click("#inc-http");
    count = 1;
    for (const page of tabs) await shows(page, "#count", "1");
    await bothWork();
    assert.deepEqual(problems, []);
  } finally {
    await browser.close();
  }
});

check("who planted a client cookie sees nothing of the victim's login, and the victim's page does", async ({ urls }) => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const attacker = new Browser(urls.at(-1));
    const { clientId } = (await attacker.get()).json;
    const spy = await attacker.open();
    const context = await browser.newContext();
    await context.addCookies([{ name: "app.sid.cid", value: attacker.jar.get("app.sid.cid"), url: urls[0] }]);
    const page = await context.newPage();
    await page.goto(urls[0]);
    const seen = await page.evaluate(async () => {
      const ask = async (method, path, body) => (await fetch(path, { method, body })).json();
      const { clientId } = await ask("GET", "session");
      const socket = window.io({ forceNew: true });
      const connected = () => new Promise((done) => { socket.once("connect", done); });
      await connected();
      const login = await ask("POST", "login", JSON.stringify({ user: "ann" }));
      const again = connected();
      socket.disconnect().connect();
      await again;
      const answer = await socket.timeout(5000).emitWithAck("session:inc");
      return { clientId, login, answer };
    });
    assert.equal(seen.clientId, clientId, "the planted cookie was taken");
    assert.deepEqual(seen.login.session, { user: "ann" });
    assert.deepEqual([seen.answer.sessionId, seen.answer.session], [seen.login.sessionId, { user: "ann", n: 1 }]);
    for (const event of ["session:get", "session:inc", "session:destroy"]) {
      assert.equal(await spy.refused(event), "missing-session");
    }
    assert.deepEqual(await spy.settled(), []);
    const late = await attacker.open();
    assert.equal(await late.refused("session:get"), "missing-session");
  } finally {
    await browser.close();
  }
});

/** A page of another server that frames this one; its frame. */
async function framed(page, url) {
  const server = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end(`<iframe src="${url}/"></iframe>`);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    return page.mainFrame().childFrames()[0];
  } finally {
    server.close();
  }
}

check("the page runs only what its node serves, and goes into no frame", async ({ urls }) => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext();
    for (const path of ["/", "/page.js", "/page.css", "/client.js"]) {
      const headers = (await context.request.get(urls[0] + path)).headers();
      assert.equal(headers["x-content-type-options"], "nosniff", path);
      const policy = headers["content-security-policy"];
      assert.match(policy, /default-src 'none'.*frame-ancestors 'none'/, path);
      assert.doesNotMatch(policy, /unsafe|\*/, path);
    }
    const page = await open(context, urls[0], []);
    // The policy lets a websocket to the page's own origin pass.
    await shows(page, "#state", "connected by websocket");
    const ran = await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      return window.ran === true;
    });
    assert.equal(ran, false, "an inline script ran");

    const other = await context.newPage();
    const refused = other.waitForEvent("console", {
      predicate: (message) => /frame-ancestors 'none'/.test(message.text()), timeout: 15_000,
    });
    const [, framing] = await Promise.all([refused, framed(other, urls[0])]);
    assert.equal(await framing.locator("#state").count(), 0, "another page framed it");
  } finally {
    await browser.close();
  }
});

check("the dashboard shows figures", async ({ urls }) => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage();
    await page.goto(`${urls[0]}/monitor`);
    await shows(page, "#state", /^Updated/);
    await shows(page, "#rows", /sockets attached/);
  } finally {
    await browser.close();
  }
});

await run();
