// The dashboard in a real browser. `SCENE` says what is to be seen; with `SCREENSHOTS` (a folder)
// it is also kept as a picture, in light and dark and on a narrow screen.
import { chromium } from "playwright-core";
import { assert, check, run } from "./harness.mjs";

const { CHROMIUM_PATH: executablePath, SCENE: scene, SCREENSHOTS: screenshots } = process.env;

/** Opens the page in a browser that ends with the check. */
async function visit(url, see) {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    page.setDefaultTimeout(20_000);
    const problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      // An answer of 503 is an error on the console too.
      if (/Content Security Policy/i.test(message.text())) problems.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) problems.push(request.url());
    });
    await page.goto(`${url}/monitor`);
    await page.waitForFunction(() => document.querySelector("#state").textContent.startsWith("Updated"));
    await see(page);
    assert.deepEqual(problems, [], "no error, and nothing fetched from elsewhere");
    await refusesInlineScripts(page);
    if (screenshots) await picture(page);
  } finally {
    await browser.close();
  }
}

async function picture(page) {
  const name = `${screenshots}/dashboard ${scene}`.replaceAll(" ", "-");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${name}-${colorScheme}.png`, fullPage: true });
  }
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: `${name}-narrow.png` });
}

/** A script that somebody got into the page does not run. */
async function refusesInlineScripts(page) {
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
    return window.ran === true;
  });
  assert.equal(ran, false, "an inline script ran");
}

const names = (page) => page.$$eval("#nodes tbody th", (cells) => cells.map((cell) => cell.firstChild.textContent));

const scenes = {
  async "all nodes"({ urls, seeded, browser }) {
    const mine = await seeded({ n: 1 });
    await mine.open();
    const other = browser();
    for (let n = 0; n < 20; n += 1) await other.post("/session/inc");
    await visit(urls[1], async (page) => {
      await page.waitForFunction(() => document.querySelectorAll("#nodes tbody tr").length === 3);
      assert.deepEqual(await names(page), ["n0", "n1", "n2"]);
      assert.equal(await page.textContent("#nodes .mark"), "this one");
      assert.match(await page.textContent("#nodes tfoot"), /3 nodes/);
      // The sum of what the nodes said of themselves, which is a few seconds old.
      await page.waitForFunction(() => {
        const [, , sockets, requests] = document.querySelector("#nodes tfoot tr").cells;
        return sockets.textContent === "1" && Number(requests.textContent) >= 20;
      });
      assert.equal(await page.isVisible("#absent"), false);
    });
  },
  async "no redis"({ urls }) {
    await visit(urls[0], async (page) => {
      await page.waitForSelector("#absent:not([hidden])");
      assert.match(await page.textContent("#absent"), /can't be asked/);
      assert.match(await page.textContent("#rows"), /sockets attached/);
    });
  },
};

check(`the dashboard: ${scene}`, scenes[scene]);
await run();
