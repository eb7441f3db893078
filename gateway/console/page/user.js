// What a user had, and what they are recommended: the two lists, with what has changed since the last page.

import { element, find, unseen } from "./dom.js";
import { DEGRADED, ago, counted, moment, ms, plain } from "./words.js";

const LATEST = 12;
const STAGES = ["queue", "features", "model", "page"];

// `described`: a DescribeUserResponse, null of a user of whom nothing is stored, or `{ unknown }`: a sentence about
// why it is not there.
export function showHistory(described) {
  const events = described?.events ?? [];
  const attributes = Object.entries(described?.attributes ?? {}).sort().map(([name, value]) => `${name} ${value}`);
  let stored = "Nothing is stored of this user.";
  if (described?.unknown) stored = `History not known: ${described.unknown}.`;
  else if (described) stored = `${counted(events.length, "event")} stored`;
  find("known").textContent = [stored, ...attributes].join(" · ");
  find("history").replaceChildren(...events.slice(-LATEST).reverse().map(line));
}

function line(event) {
  const when = element("time", { title: moment(event.time) }, ago(event.time));
  const weight = event.weight === 1 && event.type !== "EVENT_TYPE_RATE" ? "" : ` ${event.weight}`;
  const did = element("span", { class: "quiet" }, `${plain(event.type, "EVENT_TYPE_")}${weight} · `, when);
  return element("li", {}, element("span", { class: "title" }, event.title || event.itemId), did);
}

export function clear() {
  showHistory(null);
  find("known").textContent = "";
  for (const id of ["page", "stages", "origin"]) find(id).replaceChildren();
  find("degraded").hidden = true;
}

// Shows a RecommendResponse; `before` has the rank of each item of the last page, and is null if there is none
// to compare with. `choose` is called with the item whose button is pressed. Returns how much has changed.
export function showPage(answer, before, choose) {
  const list = find("page");
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  const chosen = list.children[focused]?.dataset.item;
  const change = { fresh: 0, moved: 0 };
  list.replaceChildren(...answer.items.map((item) => row(item, before, change, answer.degraded, choose)));
  if (focused >= 0 && list.children.length) {
    // The keyboard stays where it was: on the item, or on what has taken its place.
    const rows = [...list.children];
    const next = rows.find((row) => row.dataset.item === chosen) ?? rows[Math.min(focused, rows.length - 1)];
    next.querySelector("button").focus({ preventScroll: true });
  }
  showOrigin(answer);
  showStages(answer.stagesMs);
  return change;
}

function row(item, before, change, degraded, choose) {
  const attributes = { type: "button", class: "title", "aria-describedby": "pressing" };
  const button = element("button", attributes, item.title || item.itemId);
  button.addEventListener("click", () => choose(item));
  const more = [item.categories.join(", ")];
  if (item.reason) more.push(`because of ${item.reason.title || item.reason.itemId}`);
  const scored = degraded === "DEGRADED_REASON_UNSPECIFIED" || item.score !== 0;
  return element(
    "li",
    { "data-item": item.itemId },
    element("span", { class: "rank" }, String(item.rank)),
    mark(item, before, change),
    element("span", { class: "what" }, button, element("span", { class: "quiet" }, more.filter(Boolean).join(" · "))),
    element("span", { class: "score", title: "score" }, scored ? Number(item.score).toFixed(3) : "–"),
  );
}

function mark(item, before, change) {
  if (before === null) return element("span", { class: "mark" });
  const was = before.get(item.itemId);
  if (was === undefined) {
    change.fresh += 1;
    return element("span", { class: "mark fresh" }, "new");
  }
  const up = was - item.rank;
  if (up === 0) return element("span", { class: "mark" });
  change.moved += 1;
  const arrow = element("span", { "aria-hidden": "true" }, `${up > 0 ? "▲" : "▼"}${Math.abs(up)}`);
  const said = unseen(`${up > 0 ? "up" : "down"} ${Math.abs(up)}`);
  return element("span", { class: `mark ${up > 0 ? "up" : "down"}` }, arrow, said);
}

function showOrigin({ model, cohort, degraded, requestId }) {
  const version = model && `${model.name} version ${model.version}`;
  const parts = [version, cohort && `cohort ${cohort}`, `request ${requestId}`];
  find("origin").textContent = parts.filter(Boolean).join(" · ");
  const reason = String(degraded).replace("DEGRADED_REASON_", "");
  const warning = find("degraded");
  warning.hidden = reason === "UNSPECIFIED";
  warning.textContent = `Degraded: ${DEGRADED[reason] ?? reason}`;
}

// An answer without times has no stages.
function showStages(times) {
  if (!times) {
    find("stages").replaceChildren();
    return;
  }
  const other = Math.max(0, times.total - STAGES.reduce((sum, stage) => sum + times[stage], 0));
  const parts = [...STAGES.map((stage) => [stage, times[stage]]), ["other", other]];
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  const legend = element("p", { class: "quiet legend" });
  for (const [stage, took] of parts) {
    const part = element("span", { class: `stage ${stage}` });
    part.style.flexGrow = String(took);
    bar.append(part);
    legend.append(element("span", {}, element("i", { class: `stage ${stage}` }), `${stage} ${ms(took)}`));
  }
  legend.append(element("b", {}, `total ${ms(times.total)} ms`));
  find("stages").replaceChildren(bar, legend);
}
