"use strict";
(() => {
  const review = JSON.parse(document.getElementById("review").textContent);
  const cards = [...document.querySelectorAll(".cards li")];
  const shelf = `bgsweep review ${review.id}`;
  const marks = {};
  const done = [];
  let at = 0;

  // Browsers can be set to refuse storage; the marks then last as long as the page is open.
  const keep = () => {
    try {
      localStorage.setItem(shelf, JSON.stringify(marks));
    } catch {}
  };
  const kept = () => {
    try {
      return JSON.parse(localStorage.getItem(shelf)) || {};
    } catch {
      return {};
    }
  };

  // Wilson's score interval, 95 %.
  const interval = (share, count) => {
    const z2 = 1.959964 ** 2;
    const centre = (share + z2 / (2 * count)) / (1 + z2 / count);
    const half = Math.sqrt(z2) / (1 + z2 / count) * Math.sqrt((share * (1 - share)) / count + z2 / (4 * count * count));
    return [Math.max(0, centre - half), Math.min(1, centre + half)];
  };
  const percent = (share) => `${(100 * share).toFixed(0)} %`;

  const tell = () => {
    const of = (items, mark) => items.filter((item) => marks[item.mask] === mark).length;
    const sample = review.items.filter((item) => item.sampled);
    const [bad, good] = [of(review.items, "bad"), of(review.items, "good")];
    const [wrong, judged] = [of(sample, "bad"), of(sample, "bad") + of(sample, "good")];
    let words = `${bad} bad, ${good} good, ${review.items.length - bad - good} unmarked.`;
    if (sample.length) words += ` Random sample: ${judged} of ${sample.length} marked`;
    if (judged) {
      const whole = sample.length === review.pairs && judged === sample.length;
      const [low, high] = interval(wrong / judged, judged);
      words += `; estimated: ${percent(wrong / judged)} of all masks are bad`;
      words += whole ? "" : ` (95 %: ${percent(low)} to ${percent(high)})`;
    }
    document.getElementById("progress").textContent = words + (sample.length ? "." : "");
  };

  const show = (index) => {
    const mark = marks[review.items[index].mask];
    if (mark) cards[index].dataset.mark = mark;
    else delete cards[index].dataset.mark;
  };

  const go = (index, scroll = true) => {
    cards[at].removeAttribute("aria-current");
    at = Math.max(0, Math.min(cards.length - 1, index));
    cards[at].setAttribute("aria-current", "true");
    if (scroll) cards[at].scrollIntoView({ block: "nearest" });
    const large = document.getElementById("large");
    large.replaceChildren(...[...cards[at].querySelector(".picture").children].map((child) => child.cloneNode(true)));
    document.getElementById("name").textContent = review.items[at].image;
  };

  const set = (index, mark) => {
    const name = review.items[index].mask;
    if (mark) marks[name] = mark;
    else delete marks[name];
    show(index);
    tell();
    keep();
  };
  const mark = (value) => {
    done.push([at, marks[review.items[at].mask]]);
    set(at, value);
    go(at + 1);
  };
  const undo = () => {
    if (!done.length) return;
    const [index, before] = done.pop();
    set(index, before);
    go(index);
  };
  const next = () => {
    const open = (index) => !marks[review.items[index].mask];
    const order = cards.map((_, step) => (at + 1 + step) % cards.length);
    const found = order.find(open);
    if (found !== undefined) go(found);
  };
  const outline = () => document.body.classList.toggle("plain");
  const download = () => {
    const items = review.items.map(({ mask, sha256, sampled, listed }) => ({
      mask, sha256, sampled, listed, mark: marks[mask] || null,
    }));
    const text = JSON.stringify({ format: review.format, masks: review.masks, pairs: review.pairs, items }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
    link.download = "review.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  // Cards in one row have the same top; the one above or below is the nearest of the next other top.
  const row = (step) => {
    const here = cards[at].getBoundingClientRect();
    for (let index = at + step; cards[index]; index += step) {
      const there = cards[index].getBoundingClientRect();
      if (there.top !== here.top && (step > 0 ? there.left >= here.left : there.left <= here.left)) return go(index);
    }
    go(step > 0 ? cards.length - 1 : 0);
  };

  const keys = {
    b: () => mark("bad"),
    g: () => mark("good"),
    u: undo,
    n: next,
    o: outline,
    d: download,
    j: () => go(at + 1),
    k: () => go(at - 1),
    ArrowRight: () => go(at + 1),
    ArrowLeft: () => go(at - 1),
    ArrowDown: () => row(1),
    ArrowUp: () => row(-1),
    Home: () => go(0),
    End: () => go(cards.length - 1),
  };
  document.addEventListener("keydown", (event) => {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  for (const [id, act] of Object.entries({ bad: keys.b, good: keys.g, undo, next, outline, download }))
    document.getElementById(id).addEventListener("click", act);
  cards.forEach((card, index) =>
    card.addEventListener("click", (event) => {
      go(index, false);
      const button = event.target.closest("button");
      if (button) mark(button.className);
    }),
  );

  const before = kept();
  for (const item of review.items) if (before[item.mask]) marks[item.mask] = before[item.mask];
  cards.forEach((_, index) => show(index));
  tell();
  go(0, false);
  document.body.setAttribute("data-drawn", "");
})();
