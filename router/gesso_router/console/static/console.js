// The page: asks the router for its state once a second, sends prompts, shows what comes back.
"use strict";

const $ = (id) => document.getElementById(id);
const SPAN = 300; // seconds that the charts show
const KEPT = 600; // points held
const points = [];
let service = null, seq = 0, picture = 0, spoken = 0, misses = 0;

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
function swatch(k) {
  const made = make("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = `var(${colour(k)})`;
  return made;
}
const steps = (k) => (k === 0 ? "K 0 · in full" : `K ${k}`);

// ---- the fleet

const CHARTS = [
  { id: "mix", name: "Images a second, by K", wide: true,
    now: (p) => [number(p.served_rate, 2), "images/s"],
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
  { id: "quality", name: "Relative quality", now: (p) => [percent(p.quality), "predicted"],
    draw: (svg, o) => Charts.line(svg, points.map((p) => [p.at, p.quality]), { ...o, low: Math.min(0.5, service.min_quality), high: 1, goal: service.min_quality }) },
  { id: "hits", name: "Cache hits", now: (p) => [percent(p.hit_rate), "of images"],
    draw: (svg, o) => Charts.line(svg, points.map((p) => [p.at, p.hit_rate]), { ...o, low: 0, high: 1 }) },
  { id: "queue", name: "Waiting", now: (p) => [String(p.open), `requests · ${number(p.p95, 2)} s p95`],
    draw(svg, o) {
      Charts.line(svg, points.map((p) => [p.at, p.open]), { ...o, low: 0, high: Math.max(4, ...points.map((p) => p.open)) });
    } },
];

function buildCharts() {
  for (const chart of CHARTS) {
    chart.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    chart.svg.setAttribute("role", "img");
    chart.value = make("p", { class: "now" });
    const box = make("figure", { class: chart.wide ? "chart wide" : "chart", id: `chart-${chart.id}` },
      make("p", { class: "name" }, chart.name), chart.value, chart.svg);
    if (chart.wide) {
      box.append(make("ul", { class: "legend" }, ...service.ladder.map((k) => make("li", {}, swatch(k), steps(k)))));
    }
    $("charts").append(box);
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
    if (speak) chart.svg.setAttribute("aria-label", `${chart.name}, last 5 minutes: ${value} ${unit} now`);
    chart.draw(chart.svg, { end, seconds: SPAN });
  }
}

function showWorkers(state) {
  const rows = state.workers.map((w) => {
    const slots = make("div", { class: "slots", "aria-hidden": "true" });
    for (let i = 0; i < Math.min(16, Math.max(w.max_batch, w.active)); i++) slots.append(make("span", { class: i < w.active ? "slot busy" : "slot" }));
    for (let i = 0; i < Math.min(16, w.queued); i++) slots.append(make("span", { class: "slot waits" }));
    const level = w.model ? make("span", { class: "chip" }, w.model) : make("span", { class: "chip" }, swatch(w.assigned), `K ${w.assigned}`);
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
    make("span", { class: "chip" }, ...(p.model ? [p.model] : [swatch(p.skipped_steps), steps(p.skipped_steps)])),
    make("span", { class: "chip", title: "predicted relative quality" }, `quality ${percent(p.quality)}`));
}

function from(p) {
  if (!p.source) return make("p", { class: "from" }, p.model ? `by ${p.worker}` : `from noise, by ${p.worker}`);
  const told = `similarity ${p.source.similarity.toFixed(2)}, latent on ${p.source.worker}`;
  if (p.source.picture === null) return make("p", { class: "from" }, told);
  const thumb = make("img", { src: `/console/images/${p.source.picture}`, alt: "", loading: "lazy" });
  return make("p", { class: "from" }, thumb, make("a", { href: `#picture-${p.source.picture}` }, `from image ${p.source.picture}, ${told}`));
}

function showGallery(state) {
  $("gallery-note").textContent = state.gallery ? "" : "Off for privacy: spec.router.console is Private. Only your own images are shown, and only to you.";
  if (!state.pictures.length) return;
  picture = state.hung;
  $("wall").prepend(...state.pictures.map((p) => make("li", { id: `picture-${p.number}` },
    make("div", { class: "canvas" }, img(`/console/images/${p.number}`, p.prompt)),
    make("div", { class: "text" }, make("p", { class: "prompt", title: p.prompt }, p.prompt), facts(p), from(p)))));
  while ($("wall").children.length > 48) $("wall").lastElementChild.remove();
}

function img(source, alt, kind = service && service.width <= 256 ? "small" : "") {
  return make("img", { src: source, alt, class: kind });
}

// ---- polling

async function poll() {
  try {
    const answer = await fetch(`/console/state?seq=${seq}&picture=${picture}`, { cache: "no-store", signal: AbortSignal.timeout(5000), headers: auth() });
    if (!answer.ok) throw new Error(answer.status === 401 ? "an API key is needed: see Options" : `the router answers ${answer.status}`);
    const state = await answer.json();
    misses = 0;
    if (state.taken < seq) { points.length = 0; picture = 0; $("wall").replaceChildren(); } // it was started again
    seq = state.taken;
    if (!service) { service = state.service; buildCharts(); buildLevels(); }
    service = state.service;
    $("service").textContent = `${service.name} · ${service.model} · ${service.policy} · SLO ${service.slo_seconds} s`;
    points.push(...state.points);
    points.splice(0, points.length - KEPT);
    health(state.ready, state.ready ? `${state.workers.length} of ${state.workers_known} workers ready` : state.unready_reason);
    drawCharts(state.now);
    showWorkers(state);
    showWhy(state.plans);
    showGallery(state);
  } catch (error) {
    misses += 1;
    if (misses > 1) health(false, `no word from the router: ${error.message}`);
  }
  // Out of sight it need not be drawn.
  setTimeout(poll, document.hidden ? 5000 : 1000);
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
  if ($("seed").value) asked.seed = Number($("seed").value);
  if ($("deadline").value) asked.slo_ms = 1000 * Number($("deadline").value);
  if ($("floor").value) asked.min_quality = Number($("floor").value);
  return asked;
}

let running = null;
function busy(on) {
  running = on ? new AbortController() : null;
  for (const id of ["go", "compare"]) $(id).disabled = on;
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
  slider.addEventListener("input", showPair);
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
  asked.seed ??= Math.floor(Math.random() * 2 ** 31);
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
$("compare").addEventListener("click", () => { if ($("form").reportValidity()) compare(); });
$("stop").addEventListener("click", () => running?.abort());
poll();
