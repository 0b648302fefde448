// Sockets for tests in Rust: commands come as lines of JSON on stdin, and what happens goes out as
// lines of JSON on stdout. Ends with stdin.
import readline from "node:readline";
import { io } from "socket.io-client";

const sockets = new Map();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const commands = {
  open({ socket: name, url, cookie }) {
    const socket = io(url, {
      forceNew: true,
      reconnection: false,
      transports: ["websocket"],
      extraHeaders: cookie ? { cookie } : {},
    });
    sockets.set(name, socket);
    socket.on("connect", () => say({ socket: name, is: "connected" }));
    socket.on("connect_error", (error) => say({ socket: name, is: "refused", why: error.message }));
    socket.on("disconnect", (why) => say({ socket: name, is: "disconnected", why }));
    socket.onAny((message, payload) => say({ socket: name, message, payload }));
  },
  call({ socket: name, id, event, payload }) {
    sockets.get(name).emit(event, ...payload, (answer) => say({ id, answer }));
  },
  close({ socket: name }) {
    sockets.get(name).close();
    sockets.delete(name);
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command);
}
process.exit(0);
