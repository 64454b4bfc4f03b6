// Ends by itself when nobody makes an offer: called stable after 45 s of looking at it.
require("http").createServer((_, response) => response.end("ok")).listen(8082, "127.0.0.1");
console.log("waiting for an offer");
setTimeout(() => {
  console.error("no offer within 60 s");
  process.exit(1);
}, 60_000);
