"use strict";
const byId = (id) => document.getElementById(id);
const make = (tag, text, className = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
};

const EVERY = 2000;
const GROUPS = {
  "Requests": ["requests", "loads", "errors", "served_anonymously"],
  "Sessions": ["created", "commits", "conflicts", "overwrites", "ended"],
  "Leases": ["leases", "lease_timeouts", "leases_lost", "handlers_discarded"],
  "Sockets": ["sockets", "sockets_attached", "sockets_detached", "messages_sent", "messages_failed"],
  "Events": ["events", "events_missed"],
  "Unusual cookies": ["bad_signatures", "malformed_ids", "unknown_sessions", "pair_mismatches"],
};
// Levels, not counters: a rate would say nothing.
const LEVELS = new Set(["sockets"]);
// More than none asks for a look.
const ALARMS = new Set(["errors", "leases_lost", "lease_timeouts", "messages_failed", "events_missed",
  "served_anonymously"]);

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? "status " + answer.status);
  return body;
}

function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [[unit, size], next] = [units[at], units[at + 1]];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${next[0]}` : "");
}

const number = (value) => value.toLocaleString();

let before = null;
function rates(stats) {
  const now = performance.now();
  const per = (name) => {
    if (!before || LEVELS.has(name) || before.stats[name] === undefined) return null;
    // A node that was started again counts from zero.
    return Math.max(0, (stats[name] - before.stats[name]) * 1000 / (now - before.now));
  };
  const found = Object.fromEntries(Object.keys(stats).map((name) => [name, per(name)]));
  before = { now, stats };
  return found;
}

function tile(name, value) {
  const section = document.createElement("section");
  section.append(make("span", name), make("b", value));
  return section;
}

function row(name, value, rate, alarm) {
  const row = document.createElement("tr");
  const label = make("th", name.replaceAll("_", " "));
  label.scope = "row";
  const look = value === 0 ? "zero" : alarm ? "bad" : "";
  row.append(label, make("td", number(value), look));
  // No second column at all for what has no rate.
  if (rate !== undefined) row.append(make("td", rate === null ? "" : rate.toFixed(1), "zero"));
  return row;
}

function group(title, columns, rows) {
  const section = document.createElement("section");
  const table = document.createElement("table");
  const head = document.createElement("tr");
  for (const text of ["", ...columns]) head.append(make("th", text));
  table.createTHead().append(head);
  table.createTBody().append(...rows);
  section.append(make("h2", title), table);
  return section;
}

function showFigures({ node, stats: { tables, ...stats } }) {
  byId("node").textContent = node;
  document.title = `Sessions on ${node}`;
  const rate = rates(stats);
  const per = (name) => (rate[name] === null ? "…" : rate[name].toFixed(1));
  byId("tiles").replaceChildren(
    tile("Sockets here", number(stats.sockets)),
    tile("Requests / s", per("requests")),
    tile("Writes / s", per("commits")),
    tile("Events / s", per("events")),
    tile("Errors", number(stats.errors)),
  );
  const known = new Set(Object.values(GROUPS).flat());
  const others = Object.keys(stats).filter((name) => !known.has(name));
  const groups = Object.entries({ ...GROUPS, Others: others })
    .map(([title, names]) => [title, names.filter((name) => name in stats)])
    .filter(([, names]) => names.length > 0)
    .map(([title, names]) => group(title, ["total", "per second"],
      names.map((name) => row(name, stats[name], rate[name], ALARMS.has(name)))));
  const sizes = Object.entries(tables);
  if (sizes.length > 0) {
    groups.push(group("Entries in tables", ["now"], sizes.map(([name, size]) => row(name, size))));
  }
  byId("rows").replaceChildren(...groups);
}

const COUNTS = ["sockets", "requests", "created", "commits", "leases", "events"];

function nodeRow(name, mine, figures, up, version, seen) {
  const row = document.createElement("tr");
  const label = make("th", name);
  label.scope = "row";
  if (mine) label.append(make("span", "this one", "mark"));
  row.append(label, make("td", up));
  for (const count of COUNTS) {
    const value = figures[count];
    row.append(make("td", value === undefined ? "" : number(value), value ? "" : "zero"));
  }
  row.append(make("td", version), make("td", seen));
  return row;
}

function showNodes({ node: here, nodes }) {
  const [body] = byId("nodes").tBodies;
  // A node that died is listed until it has been silent for too long.
  body.replaceChildren(...nodes.map(({ node, figures, seenMs }) => nodeRow(node, node === here, figures,
    duration(figures.uptimeSeconds), figures.version, `${(seenMs / 1000).toFixed(0)} s ago`)));
  const sum = (name) => nodes.reduce((total, { figures }) => total + figures[name], 0);
  const sums = Object.fromEntries(COUNTS.map((name) => [name, sum(name)]));
  // Each node tells all events: their sum would count each of them once for each node.
  delete sums.events;
  const total = nodeRow(`${nodes.length} nodes`, false, sums, "", "", "");
  byId("nodes").tFoot.replaceChildren(...(nodes.length > 1 ? [total] : []));
  byId("nodes").hidden = false;
  byId("absent").hidden = true;
}

async function refresh() {
  const [stats, nodes] = await Promise.allSettled([ask("monitor/stats"), ask("monitor/nodes")]);
  if (stats.status === "fulfilled") showFigures(stats.value);
  if (nodes.status === "fulfilled") {
    showNodes(nodes.value);
  } else {
    byId("absent").textContent = `The nodes can't be asked for now: ${nodes.reason.message}`;
    byId("absent").hidden = false;
    // What was listed may be gone.
    byId("nodes").hidden = true;
  }
  byId("state").className = stats.status === "fulfilled" ? "" : "bad";
  byId("state").textContent = stats.status === "fulfilled"
    ? "Updated " + new Date().toLocaleTimeString() : "No answer: " + stats.reason.message;
  setTimeout(refresh, EVERY);
}
refresh();
