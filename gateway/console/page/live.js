// Throughput, p99 and batch size of the last ten seconds, from differences of what /metrics counts.

import { text } from "./calls.js";
import { element, find } from "./dom.js";
import { ms, rate } from "./words.js";

const KEPT = 60;
const SPAN_S = 10;
const SHOWN = [
  ["calls a second", (now) => now.rate, rate],
  ["p99", (now) => now.p99Ms, (value) => `${ms(value)} ms`],
  ["requests in a batch", (now) => now.batch, (value) => value.toFixed(1)],
];

let looks = []; // at what was counted, of the last ten seconds
const seen = [];

export async function look() {
  const now = { at: performance.now() / 1000, ...counts(await text("/metrics")) };
  // A counter that has fallen is that of a gateway that was started anew.
  if (looks.length && now.calls < looks.at(-1).calls) looks = [];
  looks = [...looks.filter((look) => now.at - look.at < SPAN_S + 1), now];
  if (looks.length > 1) seen.push(between(looks[0], now));
  if (seen.length > KEPT) seen.shift();
  show();
}

export function show() {
  find("live").replaceChildren(...SHOWN.map(([name, of, said]) => figure(name, seen.map(of), said)));
}

// Starts anew: what was counted while nobody looked is not of the last ten seconds.
export function forget() {
  looks = [];
}

// `name{label="value",…} 12` of Prometheus' text format. Whatever other labels there are, samples add up.
function counts(exposition) {
  const found = { calls: 0, buckets: new Map(), batches: 0, rows: 0 };
  for (const line of exposition.split("\n")) {
    const [, name, labels = "", value] = /^(riptide_\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    const ours = labels.includes('method="Recommend"');
    if (name === "riptide_requests_total" && ours) found.calls += Number(value);
    else if (name === "riptide_batch_rows_count") found.batches += Number(value);
    else if (name === "riptide_batch_rows_sum") found.rows += Number(value);
    else if (name === "riptide_request_duration_seconds_bucket" && ours) {
      const bound = Number(/(?:^|,)le="([^"]*)"/.exec(labels)[1].replace("+Inf", "Infinity"));
      found.buckets.set(bound, (found.buckets.get(bound) ?? 0) + Number(value));
    }
  }
  return found;
}

function between(then, now) {
  const batches = now.batches - then.batches;
  return {
    rate: (now.calls - then.calls) / (now.at - then.at),
    p99Ms: quantile(0.99, then.buckets, now.buckets),
    batch: batches > 0 ? (now.rows - then.rows) / batches : null,
  };
}

// As Prometheus' histogram_quantile: within a bucket, samples are taken to lie evenly. In milliseconds.
function quantile(share, then, now) {
  const bounds = [...now.keys()].sort((a, b) => a - b);
  const below = bounds.map((bound) => now.get(bound) - (then.get(bound) ?? 0));
  const wanted = share * below.at(-1);
  if (!(wanted > 0)) return null;
  const at = below.findIndex((count) => count >= wanted);
  const [low, before] = at > 0 ? [bounds[at - 1], below[at - 1]] : [0, 0];
  if (bounds[at] === Infinity) return low * 1000;
  return (low + ((bounds[at] - low) * (wanted - before)) / (below[at] - before)) * 1000;
}

function figure(name, values, said) {
  const value = values.at(-1) ?? null;
  return element(
    "div",
    {},
    element("dt", {}, name),
    element("dd", {}, element("b", {}, value === null ? "–" : said(value)), line(values)),
  );
}

// The last two minutes, newest at the right; from zero to the highest.
function line(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(...values.map((value) => value ?? 0)) || 1;
  const points = values.map((value, at) => `${KEPT - values.length + at},${19 - (18 * (value ?? 0)) / most}`);
  const path = document.createElementNS(svg.namespaceURI, "polyline");
  path.setAttribute("points", points.join(" "));
  svg.append(path);
  return svg;
}
