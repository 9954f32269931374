(() => {
  const $ = (id) => document.getElementById(id);

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const order = (a, b) => {
        const [one, two] = [key(a), key(b)];
        if (one === "" || two === "") return (one === "") - (two === ""); // what is missing stays last
        const numeric = a.cells[column].className === "number" && b.cells[column].className === "number";
        return (up ? 1 : -1) * (numeric ? one - two : one.localeCompare(two, "en"));
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    }));
  }
  for (const input of document.querySelectorAll("[data-filters]")) {
    input.addEventListener("input", () => {
      const rows = [...$(input.dataset.filters).tBodies[0].rows];
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
        row.hidden = !words.every((word) => text.includes(word));
      }
      $(`${input.dataset.filters}-count`).textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    });
  }

  // What the calculator reads must be what was written: a changed byte is no other number.
  function crc32(text) {
    let sum = -1;
    for (let i = 0; i < text.length; i++) {
      sum ^= text.charCodeAt(i);
      for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return (~sum >>> 0).toString(16).padStart(8, "0");
  }
  const written = $("data");
  if (!written || crc32(written.textContent) !== written.dataset.crc32) {
    if (!$("said")) return;
    $("said").textContent = "This page was changed after it was written, so it does not compute; make it again: shapelaw report";
    $("answer").classList.add("stale");
    $("slider").disabled = $("budget").disabled = true;
    return;
  }
  const data = JSON.parse(written.textContent);
  if (data === null) return; // sizes without a shape are answered for the budgets that the page holds

  function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 8 }, (_, i) => view.getFloat64(8 * i, true));
  }
  const thetas = unpacked(data.thetas);
  const ridge = unpacked(data.ridge || "");
  const shapes = Object.fromEntries(["width", "depth", "params", "counted", "flops"].map((n) => [n, unpacked(data[n])]));
  const count = shapes.width.length;
  const logs = { width: shapes.width.map(Math.log), depth: shapes.depth.map(Math.log), params: shapes.counted.map(Math.log) };
  const smallest = shapes.flops.reduce((best, value, i) => (value < shapes.flops[best] ? i : best), 0);
  const largest = shapes.flops.reduce((best, value, i) => (value > shapes.flops[best] ? i : best), 0);

  // The loss of one parameter vector at every shape, tokens = budget / FLOPs per token; the first lowest.
  // Vectors past the refits are laws along the fit's ridge.
  function best(vector, logTokens, from = 0, to = count) {
    const form = data.form;
    const [all, row] = vector >= data.vectors ? [ridge, vector - data.vectors] : [thetas, vector];
    const theta = all.subarray(row * form.parameters, (row + 1) * form.parameters);
    const rho = form.rho === null ? 1 : theta[form.rho];
    const kappa = form.aspect === null ? 0 : Math.exp(theta[form.aspect]);
    const mu = form.aspect === null ? 0 : theta[form.aspect + 1];
    const floor = form.floor === null ? 0 : Math.exp(theta[form.floor]);
    const terms = form.terms.map((term) => ({
      log: theta[term.log],
      slopes: [
        ...term.slopes.map(([predictor, sign, place]) => [predictor === "tokens" ? logTokens : logs[predictor], sign * theta[place]]),
        ...Object.entries(term.fixed).map(([predictor, power]) => [predictor === "tokens" ? logTokens : logs[predictor], power]),
      ],
    }));
    let found = -1;
    let lowest = Infinity;
    for (let i = from; i < to; i += 1) {
      if (!(logTokens[i] >= 0)) continue;
      let total = 0;
      for (const { log, slopes } of terms) {
        let exponent = log;
        for (const [values, power] of slopes) exponent += power * values[i];
        total += Math.exp(exponent);
      }
      if (rho !== 1) total **= rho;
      const distance = kappa * (logs.width[i] - logs.depth[i] - mu);
      const loss = floor + total * (1 + distance * distance);
      if (loss < lowest) { lowest = loss; found = i; }
    }
    return { found, loss: lowest };
  }

  function values(budget, logTokens, { found, loss }) {
    const tokens = Math.exp(logTokens[found]);
    const [width, depth, params] = [shapes.width[found], shapes.depth[found], shapes.params[found]];
    const sizes = { width, depth, aspect_ratio: width / depth, params, tokens, tokens_per_param: tokens / params, loss, flops: shapes.flops[found] * tokens };
    return data.lr === null ? sizes : { ...sizes, lr_eff: rate(width, depth) };
  }

  function rate(width, depth) {
    const { base, rule, unit, threshold, strict, named, divisor } = data.lr;
    const w = width * unit;
    const ruled = threshold !== null && (strict ? w / depth > threshold : w / depth >= threshold);
    const patched = ruled || named.includes(`${w}x${depth}`);
    const d = patched ? Math.ceil(w / divisor) : depth;
    return base / { width_sqrt_depth: w * Math.sqrt(d), width: w, sqrt_depth: Math.sqrt(d), none: 1 }[rule];
  }

  function quantile(sorted, share) {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    const high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
  }

  // How much farther the ends of a new run's interval lie from the law, less 1: fitting/new_run.py's NewRun.interval.
  function farther(found, logTokens) {
    const params = Math.log(data.newRun.counted ? shapes.counted[found] : shapes.params[found]);
    const own = { params, tokens: logTokens[found], compute: params + logTokens[found] };
    return Object.entries(data.newRun.ends).some(([name, end]) => own[name] > end) ? data.newRun.widening - 1 : 0;
  }

  // The two intervals of the loss of this very size, from the losses of all refits there.
  function ofThisSize({ found, loss }, logTokens, refitted) {
    const along = Array.from({ length: ridge.length / data.form.parameters }, (_, i) => Math.log(best(data.vectors + i, logTokens, found, found + 1).loss));
    const tails = [(1 - data.level) / 2, (1 + data.level) / 2];
    const law = Float64Array.from(refitted, Math.log).sort();
    const drawn = new Float64Array(law.length * data.newRun.noise.length);
    law.forEach((value, i) => data.newRun.noise.forEach((noise, j) => { drawn[i * data.newRun.noise.length + j] = value + noise; }));
    drawn.sort();
    const ends = (sorted, more) => {
      const [low, high] = tails.map((share) => quantile(sorted, share));
      const far = [low - more * Math.max(Math.log(loss) - low, 0), high + more * Math.max(high - Math.log(loss), 0)];
      return [Math.min(...far, ...along), Math.max(...far, ...along)].map((end) => shown(Math.exp(end))).join(" to ");
    };
    return `loss of this size, ${Math.round(100 * data.level)}% intervals: ${ends(law, 0)} by the law, ${ends(drawn, farther(found, logTokens))} for one new run`;
  }

  // Why the law says nothing at an answer, as prescribe/trust.py refuses it; nothing where it does.
  function baseless(budget, logTokens, own) {
    for (let i = 0; i < ridge.length / data.form.parameters; i += 1) {
      const found = best(data.vectors + i, logTokens);
      const other = found.found < 0 ? null : values(budget, logTokens, found);
      const apart = Object.entries(data.apart).filter(([name, most]) => other === null || Math.max(own[name], other[name]) > most * Math.min(own[name], other[name]));
      if (apart.length) return `The answer rests on what the runs do not identify: laws that fit them as well differ in its ${apart.map(([name]) => name.replaceAll("_", " ")).join(", ")}.`;
    }
    if (!(own.loss > 0 && own.loss <= data.chance)) return `The law says nothing here: its loss of ${shown(own.loss, 4)} lies outside 0 to ${shown(data.chance, 4)}, that of guessing.`;
    for (const [name, low, high] of data.ranges.filter(([each]) => each === "params" || each === "tokens"))
      if (own[name] > data.far * high || own[name] < low / data.far) return `The law says nothing here: ${name} would be over ${data.far} times beyond what was fitted.`;
    return "";
  }

  function domain(own) {
    const far = [];
    for (const [name, low, high] of data.ranges) {
      const value = own[name];
      if (value === undefined || (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9))) continue;
      const factor = value / (value > high ? high : low);
      far.push(`${name} is ${shown(factor, 3)} times the ${factor > 1 ? "largest" : "smallest"} fitted`);
    }
    const beyond = jointly(own);
    if (beyond <= data.near) return far.length ? `outside the fitted domain: ${far.join(", ")}` : "inside the fitted domain";
    return `outside the fitted domain: ${far.join(", ") || "no quantity by itself"}; jointly ${shown(beyond, 3)} times beyond the fitted rows`;
  }

  // How many times beyond the fitted rows a size lies in all its quantities together: the farthest face decides.
  function jointly(own) {
    const logs = data.axes.map((name) => Math.log(own[name]));
    const distances = data.faces.map((face) => logs.reduce((sum, log, i) => sum + face[i] * log, 0) - face[logs.length]);
    return Math.exp(Math.max(0, ...distances));
  }

  function command(own) {
    const tokens = BigInt(Math.max(Math.floor(own.tokens / data.batch), 1)) * BigInt(data.batch);
    const rest = [...(data.lr === null ? [] : [`lr_base=${data.lr.text}`]), ...data.settings];
    return [data.train, `shape.width=${own.width}`, `shape.depth=${own.depth}`, `tokens=${tokens}`, ...rest].join(" ");
  }

  function notes(own) {
    const out = [...data.notes];
    if (data.vectors === 1) out.push("no intervals: the fit has no refits of resampled runs (bootstrap=runs makes them)");
    if (count === 1) return out;
    for (const name of ["width", "depth"]) {
      const ends = [shapes[name].reduce((a, b) => Math.min(a, b)), shapes[name].reduce((a, b) => Math.max(a, b))];
      if (ends.includes(own[name])) out.push(data.edges[name][own[name] === ends[0] ? 0 : 1]);
    }
    return out;
  }

  // The nearest budget whose best shape is neither the smallest nor the largest, as a sentence; nothing if none is near.
  function nearest(budget, up) {
    for (let step = 1; step <= 200; step += 1) {
      const other = Number((budget * 10 ** ((up ? 1 : -1) * step * 0.05)).toPrecision(2));
      const { found } = best(0, shapes.flops.map((each) => Math.log(other / each)));
      if (found >= 0 && found !== smallest && found !== largest) return ` The nearest budget that they serve is about ${shown(other)}.`;
    }
    return "";
  }

  const number = (name, value) =>
    ["width", "depth"].includes(name) && Number.isInteger(value) ? String(value) : shown(value);
  const lead = { params: words, tokens: words, loss: (value) => shown(value, 4) };
  const tell = (event, detail) => $("answer").dispatchEvent(new CustomEvent(event, { detail }));

  const place = (name, part) => document.querySelector(`#numbers tr[data-name="${name}"] .${part}`);
  let asked = 0;

  function refuse(text) {
    asked += 1;
    $("said").textContent = text;
    $("answer").classList.add("stale");
    $("answer").setAttribute("aria-busy", "false");
    tell("refused");
  }

  function show(budget) {
    const logTokens = shapes.flops.map((each) => Math.log(budget / each));
    const found = best(0, logTokens);
    if (found.found < 0) return refuse("This budget buys no training token of any shape.");
    if (!data.limited && (found.found === smallest || found.found === largest))
      return refuse(`Outside what the shapes can serve: the best is the ${found.found === smallest ? "smallest" : "largest"} of all.${nearest(budget, found.found === smallest)}`);
    const own = values(budget, logTokens, found);
    const why = baseless(budget, logTokens, own);
    if (why) return refuse(why);
    $("said").textContent = "";
    $("answer").classList.remove("stale");
    for (const [name, value] of Object.entries(own)) {
      place(name, "value").textContent = number(name, value);
      place(name, "ends").textContent = "";
    }
    const far = domain(own);
    $("domain").className = far.startsWith("outside") ? "outside" : "inside";
    $("domain").textContent = far;
    const big = { shape: `${own.width} wide, ${own.depth} deep`, params: `${words(own.params)} parameters`, tokens: `${words(own.tokens)} tokens`, loss: `loss ${shown(own.loss, 4)}` };
    for (const name of Object.keys(lead)) document.querySelector(`[data-ends="${name}"]`).textContent = "";
    for (const [name, text] of Object.entries(big)) document.querySelector(`[data-big="${name}"]`).textContent = text;
    if ($("command")) $("command").textContent = command(own);
    $("notes").replaceChildren(...notes(own).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    if ($("new-run")) $("new-run").textContent = "";
    tell("answered", { budget, values: own });
    intervals(budget, logTokens, found);
  }

  // Every refit is searched too, in slices that leave the page free to answer.
  function intervals(budget, logTokens, answered) {
    asked += 1;
    const mine = asked;
    const drawn = [];
    const refitted = [];
    let vector = 1;
    let failed = 0;
    $("answer").setAttribute("aria-busy", "true");
    (function slice() {
      if (mine !== asked) return;
      for (const until = performance.now() + 12; vector < data.vectors && performance.now() < until; vector += 1) {
        const found = best(vector, logTokens);
        if ($("new-run")) refitted.push(best(vector, logTokens, answered.found, answered.found + 1).loss);
        if (found.found < 0) failed += 1;
        else drawn.push(values(budget, logTokens, found));
      }
      if (vector < data.vectors) return void setTimeout(slice);
      const spread = {};
      for (const name of drawn.length > 1 ? Object.keys(drawn[0]) : []) {
        const sorted = Float64Array.from(drawn, (one) => one[name]).sort();
        const same = sorted[sorted.length - 1] - sorted[0] <= 1e-9 * Math.abs(drawn[0][name]);
        const quantiles = [(1 - data.level) / 2, (1 + data.level) / 2].map((share) => quantile(sorted, share));
        const ends = quantiles.map((value) => number(name, value));
        if (!same) spread[name] = quantiles;
        place(name, "ends").textContent = same ? "" : ends.join(" to ");
        if (name in lead && !same) document.querySelector(`[data-ends="${name}"]`).textContent = quantiles.map(lead[name]).join(" to ");
      }
      tell("refined", spread);
      if ($("new-run") && refitted.length) $("new-run").textContent = ofThisSize(answered, logTokens, refitted);
      if (failed > 0.05 * Math.max(data.vectors - 1, 1))
        $("notes").append(Object.assign(document.createElement("li"), { textContent: `${failed} of ${data.vectors - 1} refits do not reach it at any size and are left out of the intervals` }));
      $("answer").setAttribute("aria-busy", "false");
    })();
  }

  $("slider").addEventListener("input", () => {
    const budget = Number((10 ** Number($("slider").value)).toPrecision(3));
    $("budget").value = budget.toExponential().replace("+", "");
    $("slider").setAttribute("aria-valuetext", `${$("budget").value} FLOPs`);
    $("budget").removeAttribute("aria-invalid");
    show(budget);
  });
  $("budget").addEventListener("change", () => {
    const budget = Number($("budget").value.trim() || NaN);
    const valid = Number.isFinite(budget) && budget > 0;
    $("budget").setAttribute("aria-invalid", String(!valid));
    if (!valid) return refuse("Give a positive number of FLOPs, such as 1e21.");
    $("slider").value = Math.log10(budget).toFixed(2);
    $("slider").setAttribute("aria-valuetext", `${budget} FLOPs`);
    show(budget);
  });
  $("slider").setAttribute("aria-valuetext", `${$("budget").value} FLOPs`);
})();
