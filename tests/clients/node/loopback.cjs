// Loaded before a server that would listen on every address: here it listens on loopback only.

const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port === "object") return listen.call(this, { ...port, host: "127.0.0.1" }, ...rest);
  if (typeof rest[0] === "string") rest.shift();
  return listen.call(this, port, "127.0.0.1", ...rest);
};
