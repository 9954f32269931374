// Computes losses by the report page's own code: a line of JSON in (the page's data, log tokens), a line of losses out.
"use strict";
const { readFileSync } = require("node:fs");
const vm = require("node:vm");
const page = readFileSync(process.argv[2], "utf8");
const head = page.slice(0, page.indexOf("  function values("));
// The checksum that the page holds of its data: CRC-32, by a table.
const table = Array.from({ length: 256 }, (_, n) => [...Array(8)].reduce((c) => (c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1), n));
const sum = (text) => {
  const rest = [...Buffer.from(text)].reduce((c, byte) => table[(c ^ byte) & 255] ^ (c >>> 8), -1);
  return (~rest >>> 0).toString(16).padStart(8, "0");
};
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { data, logTokens } = JSON.parse(line);
  const textContent = JSON.stringify(data);
  const document = { querySelectorAll: () => [], getElementById: () => ({ textContent, dataset: { crc32: sum(textContent) } }) };
  const context = vm.createContext({ document, atob, result: null });
  vm.runInContext(`${head}\n  result = best;\n})();`, context);
  // one point at a time: the others have no tokens, which the page passes over
  const losses = logTokens.map((own, i) => context.result(0, logTokens.map((_, j) => (j === i ? own : NaN))).loss);
  process.stdout.write(`${JSON.stringify(losses)}\n`);
});
