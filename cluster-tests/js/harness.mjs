// A browser's part of HTTP and Socket.IO, with deadlines, and a runner of named checks.
import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { io } from "socket.io-client";

export { assert };
export const LIMIT = 10_000;

/** Rejects after the limit: every wait ends. */
export function inTime(promise, what, limit = LIMIT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${limit} ms`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks again until the answer is truthy. */
export async function until(what, ask, limit = LIMIT) {
  const deadline = Date.now() + limit;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`);
    await pause(20);
  }
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let turn = 0;

/** One browser profile: a cookie jar over one or more nodes, used in turn. */
export class Browser {
  constructor(urls) {
    this.urls = [urls].flat();
    this.jar = new Map();
  }

  /** The next node. All browsers take turns: copies of one profile meet different nodes. */
  url() {
    return this.urls[turn++ % this.urls.length];
  }

  /** The same profile, all of whose requests go to one node. */
  pinned(url = this.url()) {
    const same = new Browser(url);
    same.jar = this.jar;
    return same;
  }

  clone() {
    const other = new Browser(this.urls);
    other.jar = new Map(this.jar);
    return other;
  }

  cookies() {
    return [...this.jar].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  get(path = "/session", options) {
    return this.request("GET", path, undefined, options);
  }

  post(path, body, options) {
    return this.request("POST", path, body, options);
  }

  /** Strings go as they are, everything else as JSON. `cookie` replaces the jar's header. */
  request(method, path, body, { cookie, headers = {} } = {}) {
    const header = cookie ?? this.cookies();
    const payload = body === undefined || Buffer.isBuffer(body) || typeof body === "string"
      ? body : JSON.stringify(body);
    const sent = new Promise((resolve, reject) => {
      const request = http.request(new URL(path, this.url()), {
        method,
        agent: false,
        headers: { ...(header ? { cookie: header } : {}), "content-type": "application/json", ...headers },
      }, (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          let json = null;
          try { json = JSON.parse(text); } catch { /* not every answer is JSON */ }
          const answer = new Answer(response.statusCode, response.headers, text, json);
          this.take(answer);
          resolve(answer);
        });
      });
      request.on("error", reject);
      // A node that refuses a body closes while it is still being sent, which the socket reports
      // when the request is already over.
      request.once("socket", (socket) => socket.on("error", () => {}));
      request.end(payload);
    });
    return inTime(sent, `${method} ${path}`);
  }

  take(answer) {
    for (const line of answer.setCookies()) {
      const [pair] = line.split(";");
      const at = pair.indexOf("=");
      const name = pair.slice(0, at);
      if (/;\s*max-age=0\b/i.test(line)) this.jar.delete(name);
      else this.jar.set(name, pair.slice(at + 1));
    }
  }

  /** A connected socket. */
  async open(options = {}) {
    const { cookie = this.cookies(), url = this.url(), ...rest } = options;
    const tab = new Tab(io(url, {
      forceNew: true,
      reconnection: false,
      transports: TRANSPORTS[process.env.TRANSPORT ?? "websocket"],
      extraHeaders: cookie ? { cookie } : {},
      ...rest,
    }));
    open.add(tab);
    await inTime(tab.connected, "connecting a socket");
    return tab;
  }
}

/** The id in a session cookie: a signature, the id, and perhaps a dot and the cookie's own end. */
export const idIn = (cookie) => cookie.split(".")[0].slice(-43);

export const TRANSPORTS = {
  websocket: ["websocket"],
  polling: ["polling"],
  upgrade: ["polling", "websocket"],
};

class Answer {
  constructor(status, headers, text, json) {
    Object.assign(this, { status, headers, text, json });
  }

  setCookies(name) {
    const lines = this.headers["set-cookie"] ?? [];
    return name ? lines.filter((line) => line.startsWith(`${name}=`)) : lines;
  }
}

const open = new Set();

/** A socket, its messages, and calls with acknowledgement. */
export class Tab {
  constructor(socket) {
    this.socket = socket;
    this.messages = [];
    this.connected = new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("connect_error", reject);
    });
    this.left = new Promise((resolve) => { socket.once("disconnect", resolve); });
    socket.onAny((name, payload) => this.messages.push({ name, ...payload }));
  }

  /** The answer to an event, as it is. */
  call(name, ...payload) {
    const answered = new Promise((resolve) => { this.socket.emit(name, ...payload, resolve); });
    return inTime(answered, `the answer to ${name}`);
  }

  /** The answer, which has to be a success. */
  async ok(name, ...payload) {
    const answer = await this.call(name, ...payload);
    assert.equal(answer.ok, true, `${name}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** The error's text; a success fails. */
  async refused(name, ...payload) {
    const answer = await this.call(name, ...payload);
    assert.equal(answer.ok, false, `${name}: ${JSON.stringify(answer)}`);
    return answer.error;
  }

  /** A mark in the messages: later waits begin here. */
  mark() {
    return this.messages.length;
  }

  /** The first message of this name since the mark. */
  message(name, since = 0, matches = () => true) {
    const find = () => this.messages.slice(since).find((m) => m.name === name && matches(m));
    return until(`message ${name}`, find);
  }

  /** Waits until its node has disconnected it, and returns the messages that came before that. */
  async disconnected(since = 0) {
    const why = await inTime(this.left, "a socket is disconnected by its node");
    assert.equal(why, "io server disconnect");
    return this.messages.slice(since);
  }

  /** Messages since the mark, after whatever is on its way has come. */
  async settled(since = 0) {
    // Messages and answers share one channel, but a message is sent beside the answer to what
    // caused it: it may come a moment later.
    for (let quiet = 0, seen = this.mark(); quiet < 3; quiet += 1) {
      await this.call("session:get");
      await pause(15);
      if (this.mark() !== seen) {
        seen = this.mark();
        quiet = 0;
      }
    }
    return this.messages.slice(since);
  }

  close() {
    open.delete(this);
    this.socket.close();
  }
}

/** Sends bytes as they are and returns the status line, or "" if the connection was cut. */
export function raw(url, bytes) {
  const { hostname, port } = new URL(url);
  const sent = new Promise((resolve) => {
    let answer = "";
    const connection = net.connect(Number(port), hostname, () => connection.write(bytes));
    connection.on("data", (chunk) => {
      answer += chunk.toString("latin1");
      if (answer.includes("\r\n\r\n")) connection.end();
    });
    connection.on("close", () => resolve(answer));
    connection.on("error", () => resolve(answer));
  });
  return inTime(sent, "a raw request");
}

const checks = [];

/** A check: a sentence and what shows it. */
export function check(sentence, body) {
  checks.push({ sentence, body });
}

/** Runs all checks against the nodes given as arguments. */
export async function run() {
  const urls = process.argv.slice(2).filter((argument) => argument.startsWith("http"));
  if (urls.length === 0) throw new Error("give the node's URL");
  let failed = 0;
  for (const { sentence, body } of checks) {
    try {
      await inTime(body({ urls, browser: () => new Browser(urls), seeded: (data = { n: 1 }) => seeded(urls, data) }), sentence, 60_000);
      console.log(`PASS ${sentence}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${sentence}\n     ${error.stack}`);
    }
    for (const tab of [...open]) tab.close();
  }
  console.log(`${checks.length - failed} passed, ${failed} failed`);
  process.exit(failed === 0 && checks.length > 0 ? 0 : 1);
}

/** A browser with a session. */
async function seeded(urls, data) {
  const browser = new Browser(urls);
  await browser.get();
  const answer = await browser.post("/session/set", data);
  assert.equal(answer.status, 200);
  return browser;
}
