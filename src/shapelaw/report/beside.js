// What stands beside the answer: its hours and dollars, the picture that follows it, and pictures in their full size.
(() => {
  const $ = (id) => document.getElementById(id);
  const answer = $("answer");

  // Hours and dollars of a budget, on a device of so many FLOP/s at a utilisation, by its price.
  let budget = Number(answer.dataset.budget);
  const fields = ["device", "mfu", "price"];
  function priced() {
    const [device, mfu, price] = fields.map((name) => Number($(name).value.trim() || NaN));
    const right = { device: device > 0 && Number.isFinite(device), mfu: mfu > 0 && mfu <= 1, price: price >= 0 && Number.isFinite(price) };
    for (const name of fields) $(name).setAttribute("aria-invalid", String(!right[name]));
    if (!fields.every((name) => right[name])) {
      $("cost").textContent = "Give positive numbers, and a utilisation of at most 1.";
      return;
    }
    const seconds = budget / (device * mfu);
    $("cost").textContent = `${span(seconds)} of one device, ${words((seconds / 3600) * price)} dollars`;
  }
  for (const name of fields) $(name).addEventListener("input", priced);
  answer.addEventListener("answered", ({ detail }) => {
    budget = detail.budget;
    priced();
  });

  // The dots, whiskers and line of the picture, in its own units.
  const picture = $("picture");
  if (picture) {
    const { low, high, left, right } = Object.fromEntries(Object.entries(picture.dataset).map(([name, text]) => [name, Number(text)]));
    const across = (flops) => left + ((Math.log10(flops) - low) / (high - low)) * (right - left);
    const panels = [...picture.querySelectorAll(".panel")].map((node) => ({ node, ...Object.fromEntries(Object.entries(node.dataset).map(([name, text]) => [name, Number(text)])) }));
    const height = (panel, value) => {
      const place = panel.log ? Math.log10(value) : value;
      const free = panel.bottom - ((place - panel.low) / (panel.high - panel.low)) * (panel.bottom - panel.top);
      return Math.min(Math.max(free, panel.top), panel.bottom);
    };
    const each = (act) => panels.forEach((panel) => panel.node.querySelectorAll("[data-mark]").forEach((mark) => act(panel, mark)));
    const hide = (hidden) => picture.classList.toggle("unanswered", hidden);
    answer.addEventListener("answered", ({ detail }) => {
      const x = across(detail.budget);
      hide(!(x >= left - 1e-6 && x <= right + 1e-6));
      picture.querySelector(".budget-line").setAttribute("transform", `translate(${x.toFixed(2)})`);
      each((panel, mark) => {
        mark.setAttribute("transform", `translate(${x.toFixed(2)})`);
        const y = height(panel, detail.values[mark.dataset.mark]).toFixed(2);
        mark.querySelector("circle").setAttribute("cy", y);
        for (const end of ["y1", "y2"]) mark.querySelector("line").setAttribute(end, y);
      });
    });
    answer.addEventListener("refined", ({ detail }) => each((panel, mark) => {
      const ends = detail[mark.dataset.mark];
      if (ends) ends.forEach((end, i) => mark.querySelector("line").setAttribute(`y${i + 1}`, height(panel, end).toFixed(2)));
    }));
    answer.addEventListener("refused", () => hide(true));
  }

  // A picture alone, as large as the window.
  const large = $("large");
  for (const button of document.querySelectorAll("button.enlarge"))
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      large.querySelector("img").replaceWith(Object.assign(new Image(), { src: image.src, alt: image.alt }));
      large.showModal();
    });
  if (large) large.addEventListener("click", () => large.close());

  // On paper nothing is folded.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
