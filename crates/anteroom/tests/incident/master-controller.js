// A service that is fine: it uses what Node.js 14 brought, and runs on 20.
const settings = JSON.parse("{}");
const port = settings.network?.port ?? 8080;
require("http").createServer((_, response) => response.end("ok")).listen(port, "127.0.0.1");
