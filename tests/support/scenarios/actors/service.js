// SPDX-License-Identifier: Apache-2.0
// A Node service with a hole: /run?c=COMMAND. Usage: service.js PORT
const http = require("http");
const { exec } = require("child_process");

http
  .createServer((request, response) => {
    const url = new URL(request.url, "http://service");
    if (url.pathname !== "/run") {
      response.end("well\n");
      return;
    }
    const child = exec(url.searchParams.get("c"), { timeout: 20000 }, (_, output) => response.end(output));
    child.stdin.end();
  })
  .listen(Number(process.argv[2]), "0.0.0.0");
