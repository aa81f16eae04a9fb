// SPDX-License-Identifier: Apache-2.0
// A Node service with a hole: /run?c=COMMAND; /workers?u=URL has a worker process fetch. Usage: service.js PORT
const http = require("http");
const { exec, fork } = require("child_process");

function answer(request, response) {
  const url = new URL(request.url, "http://service");
  if (url.pathname === "/workers") {
    fork(__filename, ["worker", url.searchParams.get("u")]).on("exit", () => response.end("done\n"));
  } else if (url.pathname === "/run") {
    const child = exec(url.searchParams.get("c"), { timeout: 20000 }, (_, output) => response.end(output));
    child.stdin.end();
  } else {
    response.end("well\n");
  }
}

if (process.argv[2] === "worker") {
  http.get(process.argv[3], (page) => page.resume().on("end", () => process.exit()));
} else {
  http.createServer(answer).listen(Number(process.argv[2]), "0.0.0.0");
}
