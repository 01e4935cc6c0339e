// The `ws` package: says things at each URL and expects them back.
//
//     node websocket.cjs URL...
//
// Prints a JSON line for each URL.

const WebSocket = require("ws");

const SAID = ["hello", "x".repeat(70000)];

function talk(url) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: "Bearer agents-own" };
    const socket = new WebSocket(url, { headers, handshakeTimeout: 20000 });
    let heard = 0;
    socket.on("open", () => socket.send(SAID[0]));
    socket.on("message", (data) => {
      if (data.toString() !== SAID[heard]) return reject(new Error(`heard ${data}`));
      heard += 1;
      if (heard < SAID.length) socket.send(SAID[heard]);
      else socket.close();
    });
    socket.on("close", () => resolve({ status: 101, messages: heard }));
    socket.on("unexpected-response", (_request, answer) => {
      let body = "";
      answer.on("data", (piece) => (body += piece));
      answer.on("end", () => resolve({ status: answer.statusCode, body }));
    });
    socket.on("error", reject);
  });
}

(async () => {
  for (const url of process.argv.slice(2)) console.log(JSON.stringify(await talk(url)));
  // A refused upgrade leaves its connection open; nothing more is wanted from it.
  process.exit(0);
})();
