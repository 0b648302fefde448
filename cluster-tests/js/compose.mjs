// What docker-compose.yml says, checked against the other files of its folder and the node's flags.
// Arguments: the folder, and the node's program.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { parse } from "yaml";

const [folder, node] = process.argv.slice(2);
const file = (name) => readFileSync(join(folder, name), "utf8");
const { services, volumes } = parse(file("docker-compose.yml"), { merge: true });

const nodes = Object.entries(services).filter(([, { environment }]) => environment?.NODE_NAME);
assert.equal(nodes.length, 3);
const help = execFileSync(node, ["--help"], { encoding: "utf8" });
for (const [name, { environment }] of nodes) {
  assert.equal(environment.NODE_NAME, name);
  for (const variable of Object.keys(environment)) {
    assert.match(help, new RegExp(`\\s${variable}[\\s=]`), `${name}: the node reads ${variable}`);
  }
  assert.match(environment.REDIS_URL, /@redis:6379$/);
  assert.equal(environment.TRUST_PROXY, "1");
}
// All of them are the same but for their names.
const same = nodes.map(([, { environment, ...rest }]) => ({ ...rest, environment: { ...environment, NODE_NAME: "" } }));
for (const other of same) assert.deepEqual(other, same[0]);
assert.equal(existsSync(join(folder, same[0].build.context, same[0].build.dockerfile)), true);

for (const [name, service] of Object.entries(services)) {
  for (const needed of Object.keys(service.depends_on ?? {})) {
    assert.ok(services[needed]?.healthcheck, `${name} waits for ${needed}, which has a check`);
  }
  for (const mount of service.volumes ?? []) {
    const [from] = mount.split(":");
    assert.ok(from.startsWith("./") ? existsSync(join(folder, from)) : from in volumes, mount);
  }
  assert.ok(name === "balancer" || !service.ports, `${name} is reached from inside only`);
}

const names = nodes.map(([name]) => `${name}:3000`);
for (const [config, pattern] of [["nginx.conf", /server (\S+:\d+)/g], ["haproxy.cfg", /server \S+ (\S+:\d+)/g]]) {
  const servers = [...file(config).matchAll(pattern)].map(([, server]) => server);
  assert.deepEqual(servers, [...names, ...names], `${config}: every node for HTTP and for sockets`);
}
const [published] = services.balancer.ports;
const listening = published.split(":")[1];
assert.match(file("nginx.conf"), new RegExp(`^\\s*listen ${listening};`, "m"));
assert.match(file("haproxy.cfg"), new RegExp(`^\\s*bind :${listening}$`, "m"));
assert.match(file("Dockerfile"), /PORT=3000/);
console.log("1 passed, 0 failed");
