// Small charts as inline SVG: a line with its goal, and a stack of areas. No state, no dependencies.
"use strict";

const Charts = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const WIDTH = 300, HEIGHT = 90, PAD = 4;

  function element(name, attributes) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function frame(svg) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.replaceChildren();
    for (const share of [0, 0.5, 1]) {
      const y = PAD + share * (HEIGHT - 2 * PAD);
      svg.append(element("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
    }
  }

  // Times to x: the right edge is `end`, `seconds` lie across.
  const xOf = (at, end, seconds) => WIDTH * (1 - (end - at) / seconds);
  const yOf = (value, low, high) => HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value - low) / (high - low || 1);
  const at2 = (x, y) => `${x.toFixed(1)},${y.toFixed(1)}`;

  // A line through [at, value]; null values leave gaps. `goal` is drawn dashed.
  function line(svg, points, { end, seconds, low, high, goal }) {
    frame(svg);
    const clamp = (v) => Math.min(high, Math.max(low, v));
    const runs = [[]];
    for (const [at, value] of points) {
      const x = xOf(at, end, seconds);
      if (value === null) runs.push([]);
      else if (x >= 0) runs.at(-1).push([x, yOf(clamp(value), low, high)]);
    }
    for (const run of runs.filter((r) => r.length)) {
      const path = run.map(([x, y]) => at2(x, y)).join(" L");
      const floor = HEIGHT - PAD;
      svg.append(element("path", { class: "fill", d: `M${at2(run[0][0], floor)} L${path} L${at2(run.at(-1)[0], floor)}Z` }));
      svg.append(element("path", { class: "line", d: `M${path}`, "vector-effect": "non-scaling-stroke" }));
    }
    if (goal !== undefined) {
      const y = yOf(clamp(goal), low, high);
      svg.append(element("line", { class: "goal", x1: 0, x2: WIDTH, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
    }
  }

  // Areas on top of one another: [at, [value, ...]], one colour for each value.
  function stack(svg, points, colours, { end, seconds, high }) {
    frame(svg);
    const seen = points.filter(([at]) => xOf(at, end, seconds) >= 0);
    if (seen.length < 2) return;
    let base = seen.map(() => 0);
    colours.forEach((colour, i) => {
      const top = seen.map(([, values], j) => base[j] + (values[i] ?? 0));
      const up = seen.map(([at], j) => at2(xOf(at, end, seconds), yOf(top[j], 0, high)));
      const down = seen.map(([at], j) => at2(xOf(at, end, seconds), yOf(base[j], 0, high))).reverse();
      svg.append(element("path", { d: `M${up.join(" L")} L${down.join(" L")}Z`, fill: `var(${colour})` }));
      base = top;
    });
  }

  return { line, stack };
})();
