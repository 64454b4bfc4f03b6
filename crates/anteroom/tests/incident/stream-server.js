// Written for Node.js 14, run by 12: the downgrade that "mended" the incident and broke this.
const settings = JSON.parse("{}");
const port = settings.network?.port;
require("http").createServer((_, response) => response.end("ok")).listen(port || 8081, "127.0.0.1");
