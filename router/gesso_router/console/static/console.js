// The page: asks the router for its state once a second, sends prompts, shows what comes back.
"use strict";

const $ = (id) => document.getElementById(id);
const SPAN = 300; // seconds that the charts show
const KEPT = 600; // points held
const STICKS = 10; // seconds that a router is shown while others answer in its place
const points = [];
let service = null, instance = "", heard = 0, key = "", seq = 0, picture = 0, spoken = 0, misses = 0;

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
const percent = (v) => (v === null || v === undefined ? "–" : `${(100 * v).toFixed(v >= 0.9995 || v < 0.0005 ? 0 : 1)}\u202f%`);
const number = (v, digits = 1) => (v === null || v === undefined ? "–" : v.toFixed(digits));
const colour = (k) => `--k${Math.min(7, Math.max(0, service.ladder.indexOf(k)))}`;
// Of a variant, as `mix` names it: a level, or another model.
const colourOf = (v) => (service.models.includes(v) ? `--m${service.models.indexOf(v) % 3}` : colour(Number(v)));
const nameOf = (v) => (service.models.includes(v) ? v : `K ${v}`);
function swatch(variant) {
  const made = make("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = `var(${colourOf(variant)})`;
  return made;
}
const steps = (k) => (k === 0 ? "K 0 · in full" : `K ${k}`);

// ---- the fleet

const CHARTS = [
  { id: "mix", name: "Images a second, by K", size: "wide",
    now: (p) => [number(p.served_rate, 2), "images/s"],
    legend: () => service.ladder.map((k) => [k, steps(k)]),
    draw(svg, o) {
      const rates = points.map((p) => {
        const all = p.levels.reduce((a, b) => a + b, 0);
        return [p.at, p.levels.map((n) => (all ? (n / all) * (p.served_rate ?? 0) : 0))];
      });
      const high = Math.max(0.5, ...points.map((p) => p.served_rate ?? 0)) * 1.1;
      Charts.stack(svg, rates, service.ladder.map(colour), { ...o, high });
    } },
  { id: "slo", name: "Served in time", now: (p) => [percent(p.attainment), `goal ${percent(service.attainment)}`],
    draw: (svg, o) => Charts.line(svg, points.map((p) => [p.at, p.attainment]), { ...o, low: 0, high: 1, goal: service.attainment }) },
  { id: "fleet", name: "Workers, by K", size: "wide",
    now: (p) => [String(p.workers), "ready"],
    legend: (p) => variants().map((v) => [v, `${nameOf(v)}: ${p.mix[v] ?? 0}`]),
    told: (p) => variants().filter((v) => p.mix[v]).map((v) => `, ${nameOf(v)}: ${p.mix[v]}`).join(""),
    draw(svg, o) {
      const shown = variants(), counts = points.map((p) => [p.at, shown.map((v) => p.mix[v] ?? 0)]);
      Charts.stack(svg, counts, shown.map(colourOf), { ...o, high: Math.max(1, ...points.map((p) => p.workers)) });
    } },
  { id: "queue", name: "Waiting", now: (p) => [String(p.waiting), `requests · ${number(p.p95, 2)} s p95`],
    draw(svg, o) {
      Charts.line(svg, points.map((p) => [p.at, p.waiting]), { ...o, low: 0, high: Math.max(4, ...points.map((p) => p.waiting)) });
    } },
  { id: "quality", name: "Relative quality", size: "half", now: (p) => [percent(p.quality), "predicted"],
    draw: (svg, o) => Charts.line(svg, points.map((p) => [p.at, p.quality]), { ...o, low: Math.min(0.5, service.min_quality), high: 1, goal: service.min_quality }) },
  { id: "hits", name: "Cache hits", size: "half", now: (p) => [percent(p.hit_rate), "of images"],
    draw: (svg, o) => Charts.line(svg, points.map((p) => [p.at, p.hit_rate]), { ...o, low: 0, high: 1 }) },
];

// Every variant that workers had in what is shown: levels, then models.
function variants() {
  const seen = new Set(points.flatMap((p) => Object.keys(p.mix)));
  const levels = [...seen].filter((v) => !service.models.includes(v)).sort((a, b) => a - b);
  return [...levels, ...service.models.filter((m) => seen.has(m))];
}

function buildCharts() {
  $("charts").replaceChildren();
  for (const chart of CHARTS) {
    chart.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    chart.svg.setAttribute("role", "img");
    chart.value = make("p", { class: "now" });
    chart.key = make("ul", { class: "legend" });
    $("charts").append(make("figure", { class: `chart ${chart.size ?? ""}`, id: `chart-${chart.id}` },
      make("p", { class: "name" }, chart.name), chart.value, chart.svg, ...(chart.legend ? [chart.key] : [])));
  }
}

function drawCharts(end) {
  const last = points.at(-1);
  if (!last) return;
  // Readers that speak are told now and then only.
  const speak = end - spoken > 10;
  if (speak) spoken = end;
  for (const chart of CHARTS) {
    const [value, unit] = chart.now(last);
    chart.value.replaceChildren(value, " ", make("small", {}, unit));
    const legend = chart.legend?.(last) ?? [];
    chart.key.replaceChildren(...legend.map(([v, text]) => make("li", {}, swatch(v), text)));
    if (speak) chart.svg.setAttribute("aria-label", `${chart.name}, last 5 minutes: ${value} ${unit} now${chart.told?.(last) ?? ""}`);
    chart.draw(chart.svg, { end, seconds: SPAN });
  }
}

function showWorkers(state) {
  const rows = state.workers.map((w) => {
    const slots = make("div", { class: "slots", "aria-hidden": "true" });
    for (let i = 0; i < Math.min(16, Math.max(w.max_batch, w.active)); i++) slots.append(make("span", { class: i < w.active ? "slot busy" : "slot" }));
    for (let i = 0; i < Math.min(16, w.queued); i++) slots.append(make("span", { class: "slot waits" }));
    const variant = w.model || w.assigned, level = make("span", { class: "chip" }, swatch(variant), nameOf(variant));
    return make("li", {}, make("div", { class: "row" }, make("span", {}, w.name), level), slots,
      make("span", { class: "quiet" }, `${w.active} of ${w.max_batch} slots busy, ${w.queued} waiting`));
  });
  const away = state.workers_known - state.workers.length;
  if (away > 0) rows.push(make("li", { class: "quiet" }, `${away} more not ready`));
  if (!rows.length) rows.push(make("li", { class: "quiet" }, "None is ready."));
  $("workers").replaceChildren(...rows);
}

let whyShown = "";
function showWhy(plans) {
  const key = plans.map((p) => p.revision).join();
  if (!plans.length || key === whyShown) return;
  whyShown = key;
  $("why").replaceChildren(...plans.slice(0, 12).map((p) => make("li", {},
    make("p", {}, p.message || p.reason),
    make("p", { class: "mix" }, make("time", { datetime: new Date(p.at * 1000).toISOString() }, new Date(p.at * 1000).toLocaleTimeString()),
      ` · ${p.reason} · mix ${p.mix || "–"} (K:workers)${p.times > 1 ? ` · ${p.times} in a row` : ""}`))));
}

// ---- the gallery

function facts(p) {
  return make("div", { class: "facts" },
    make("span", { class: "chip" }, swatch(p.model || p.skipped_steps), p.model || steps(p.skipped_steps)),
    make("span", { class: "chip", title: "predicted relative quality" }, `quality ${percent(p.quality)}`));
}

function from(p) {
  if (!p.source) return make("p", { class: "from" }, p.model ? `by ${p.worker}` : `from noise, by ${p.worker}`);
  const near = p.source.similarity === null ? "" : `similarity ${p.source.similarity.toFixed(2)}, `;
  const told = `${near}latent on ${p.source.worker}`;
  if (p.source.picture === null) return make("p", { class: "from" }, told);
  const thumb = hung(p.source.picture, "");
  return make("p", { class: "from" }, thumb, make("a", { href: `#picture-${p.source.picture}` }, `from image ${p.source.picture}, ${told}`));
}

function showGallery(state) {
  $("gallery-note").textContent = state.gallery ? "" : "Off for privacy: spec.router.console is Private. Only your own images are shown, and only to you.";
  if (!state.pictures.length) return;
  picture = state.hung;
  $("wall").prepend(...state.pictures.map((p) => make("li", { id: `picture-${p.number}` },
    make("div", { class: "canvas" }, hung(p.number, p.prompt)),
    make("div", { class: "text" }, make("p", { class: "prompt", title: p.prompt }, p.prompt), facts(p), from(p)))));
  while ($("wall").children.length > 48) $("wall").lastElementChild.remove();
}

function img(source, alt, kind = service && service.width <= 256 ? "small" : "") {
  return make("img", { src: source, alt, class: kind });
}

// An image of the gallery. Where routers share an address another one may be asked for it, which has none of that
// name: then again, a little later.
function hung(number, alt) {
  const source = `/console/images/${instance}/${number}`, made = img(source, alt);
  let left = 8;
  const again = () => { if (made.isConnected) made.src = source; };
  made.addEventListener("error", () => { if (left-- > 0) setTimeout(again, 500 + 1000 * Math.random()); });
  return made;
}

// ---- polling

// What is shown is of one instance of a router, and of one caller.
function forget(next) {
  instance = next;
  seq = picture = spoken = points.length = 0;
  whyShown = "";
  $("wall").replaceChildren();
}

// Whether to show what this instance tells: the one that was shown is gone, or has been silent for long.
const takes = (other) => other === instance || !instance || service.routers === 1 || misses > 0 || Date.now() - heard > 1000 * STICKS;

async function poll() {
  let patience = document.hidden ? 5000 : 1000; // out of sight it need not be drawn
  if ($("key").value !== key) { key = $("key").value; forget(""); }
  try {
    const answer = await fetch(`/console/state?instance=${instance}&seq=${seq}&picture=${picture}`, { cache: "no-store", signal: AbortSignal.timeout(5000), headers: auth() });
    if (!answer.ok) throw new Error(answer.status === 401 ? "an API key is needed: see Options" : `the router answers ${answer.status}`);
    const state = await answer.json();
    if (takes(state.instance)) show(state); else patience = 500;
  } catch (error) {
    misses += 1;
    if (misses > 1) health(false, `no word from the router: ${error.message}`);
  }
  setTimeout(poll, patience);
}

function show(state) {
  misses = 0;
  heard = Date.now();
  if (state.instance !== instance) forget(state.instance);
  seq = state.taken;
  const before = service?.ladder.join();
  service = state.service;
  if (service.ladder.join() !== before) { buildCharts(); buildLevels(); }
  $("span").textContent = service.routers > 1 ? `last 5 minutes, of one of ${service.routers} routers` : "last 5 minutes";
  $("service").textContent = `${service.name} · ${service.model} · ${service.policy} · SLO ${service.slo_seconds} s`;
  points.push(...state.points);
  points.splice(0, points.length - KEPT);
  health(state.ready, state.ready ? `${state.workers.length} of ${state.workers_known} workers ready` : state.unready_reason);
  drawCharts(state.now);
  showWorkers(state);
  showWhy(state.plans);
  showGallery(state);
}

function health(ready, text) {
  $("health").className = ready ? "health ready" : "health down";
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

function auth() {
  const key = $("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// ---- generating

// Reads server-sent events from a POST, which EventSource cannot send; `on` gets (event, data).
async function stream(body, signal, on) {
  const answer = await fetch("/console/generate", {
    method: "POST", signal, headers: { "Content-Type": "application/json", ...auth() }, body: JSON.stringify(body),
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error?.message ?? `the router answers ${answer.status}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const [event, data] = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      on(event.slice(7), JSON.parse(data.slice(6)));
    }
  }
}

function wish() {
  const asked = { prompt: $("prompt").value };
  if ($("seed").value) asked.seed = $("seed").value; // as text: numbers end at 2^53 here, seeds at 2^63
  if ($("deadline").value) asked.slo_ms = 1000 * Number($("deadline").value);
  if ($("floor").value) asked.min_quality = Number($("floor").value);
  return asked;
}

let running = null, origin = null;
// The keyboard's focus stays where it is: a button that is disabled or hidden would lose it.
function busy(on) {
  running = on ? new AbortController() : null;
  for (const id of ["go", "compare"]) $(id).setAttribute("aria-disabled", String(on));
  if (on) origin = document.activeElement === document.body ? $("go") : document.activeElement;
  else if (document.activeElement === $("stop")) origin.focus();
  $("stop").hidden = !on;
}

const made = (d) => `${d.model || steps(d.skipped_steps)} · quality ${percent(d.quality)} · ` +
  (d.skipped_steps ? `similarity ${d.similarity.toFixed(2)} · ` : "") +
  `waited ${d.queue_seconds.toFixed(2)} s, made in ${d.generate_seconds.toFixed(2)} s by ${d.worker} · seed ${d.seed}`;

async function generate() {
  busy(true);
  const canvas = $("canvas"), bar = $("progress");
  canvas.classList.add("faint");
  bar.hidden = false; bar.removeAttribute("value");
  $("caption").textContent = "Asking the router…";
  $("prompt-error").textContent = "";
  try {
    await stream(wish(), running.signal, (event, d) => {
      if (event === "queued") $("caption").textContent = `Accepted; expected to wait ${d.wait.toFixed(1)} s.`;
      if (event === "started") $("caption").textContent = `Denoising on ${d.worker}, ${d.skipped_steps} of ${service.steps} steps skipped.`;
      if (event === "progress") {
        bar.max = d.steps; bar.value = d.step;
        if (d.preview) {
          canvas.classList.remove("faint");
          canvas.replaceChildren(img(`data:image/jpeg;base64,${d.preview}`, `A preview, after ${d.step} of ${d.steps} steps`, "preview"));
        }
      }
      if (event === "image") {
        canvas.classList.remove("faint");
        canvas.replaceChildren(img(`data:${d.media_type};base64,${d.b64}`, $("prompt").value));
        $("caption").textContent = made(d);
      }
      if (event === "error") throw new Error(d.message);
    });
  } catch (error) {
    $("caption").textContent = "";
    $("prompt-error").textContent = error.name === "AbortError" ? "Stopped." : error.message;
  } finally {
    canvas.classList.remove("faint");
    bar.hidden = true;
    busy(false);
  }
}

// ---- every K side by side

let results = new Map();
function buildLevels() {
  const slider = $("level");
  slider.max = service.ladder.length - 1;
  slider.value = service.ladder.length - 1;
  $("levels").replaceChildren(...service.ladder.map((k, i) => make("option", { value: i, label: String(k) })));
}

function fill(box, caption, k) {
  const d = results.get(k);
  const source = d?.b64 ? `data:${d.media_type};base64,${d.b64}` : null;
  if (source) { if (box.querySelector("img")?.src !== source) box.replaceChildren(img(source, `K ${k}`)); }
  else box.replaceChildren(make("p", { class: "hint" }, d?.error ?? "…"));
  caption.textContent = source ? `${steps(k)} · ${percent(d.quality)} · ${d.generate_seconds.toFixed(1)} s` : steps(k);
}

function showPair() {
  const k = service.ladder[$("level").value];
  $("level-out").textContent = `${k} of ${service.steps}`;
  $("level").setAttribute("aria-valuetext", `${k} of ${service.steps} steps skipped`);
  fill($("left"), $("left-caption"), 0);
  fill($("right"), $("right-caption"), k);
  for (const button of $("strip").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.k === String(k)));
}

async function compare() {
  const asked = wish();
  asked.seed ??= String(Math.floor(Math.random() * 2 ** 31));
  results = new Map();
  busy(true);
  $("prompt-error").textContent = "";
  $("compare-section").hidden = false;
  $("compare-prompt").textContent = `${asked.prompt} · seed ${asked.seed}`;
  $("strip").replaceChildren(...service.ladder.map((k, i) => {
    const button = make("button", { type: "button", "data-k": k, "aria-pressed": "false" },
      make("div", { class: "canvas" }, make("p", { class: "hint" }, "…")), make("span", { class: "label" }, steps(k)));
    button.addEventListener("click", () => { $("level").value = i; showPair(); });
    return make("li", {}, button);
  }));
  showPair();
  $("compare-section").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  const one = async (k, i) => {
    const box = $("strip").children[i].querySelector(".canvas"), label = $("strip").children[i].querySelector(".label");
    try {
      await stream({ ...asked, slo_ms: asked.slo_ms ?? 60000, skipped_steps: k }, running.signal, (event, d) => {
        if (event === "image") results.set(k, d);
        if (event === "error") results.set(k, { error: d.code === "no-latent" ? "no similar latent yet" : d.message });
      });
    } catch (error) {
      results.set(k, { error: error.name === "AbortError" ? "stopped" : error.message });
    }
    fill(box, label, k);
    showPair();
  };
  await Promise.all(service.ladder.map(one));
  busy(false);
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); if (!running) generate(); });
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("form").requestSubmit(); }
});
$("compare").addEventListener("click", () => { if (!running && $("form").reportValidity()) compare(); });
$("level").addEventListener("input", showPair);
$("stop").addEventListener("click", () => running?.abort());
poll();
