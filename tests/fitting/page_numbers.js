// Computes losses by the report page's own code: a line of JSON in (the page's data, log tokens), a line of losses out.
"use strict";
const { readFileSync } = require("node:fs");
const vm = require("node:vm");
const page = readFileSync(process.argv[2], "utf8");
const head = page.slice(0, page.indexOf("  function values("));
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { data, logTokens } = JSON.parse(line);
  const document = { getElementById: () => ({ textContent: JSON.stringify(data) }) };
  const context = vm.createContext({ document, atob, result: null });
  vm.runInContext(`${head}\n  result = best;\n})();`, context);
  // one point at a time: the others have no tokens, which the page passes over
  const losses = logTokens.map((own, i) => context.result(0, logTokens.map((_, j) => (j === i ? own : NaN))).loss);
  process.stdout.write(`${JSON.stringify(losses)}\n`);
});
