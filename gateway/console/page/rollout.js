// The state of a rollout, and what an operator may do about it.

import { Failure, call, get, sentenceOf } from "./calls.js";
import { element, find, say } from "./dom.js";
import { PHASES, ago, moment, ms, percent, plain, rate } from "./words.js";

const ENTRIES = 5;
const MAY = {
  promote: ["SHADOW", "CANARY"],
  "roll-back": ["CHECK", "LOAD", "PROVE", "SHADOW", "CANARY", "EXPERIMENT", "RETIRE"],
};

const NAMES = [["promote", "promote"], ["roll-back", "roll back"]];

let phase = "";
let meant = "0"; // the version that a button is about
let busy = false;
let offered = null; // whether this gateway passes on what an operator does; null: not known yet

export async function look() {
  try {
    offered ??= (await get("/console/operator")).offered;
    const { rollout, versions } = await get("/console/rollout");
    show(rollout);
    showVersions(versions.filter((figures) => matters(figures, rollout)));
  } catch (error) {
    phase = "";
    find("phase").textContent = "";
    find("standing").textContent = `The rollout's state is not known: ${sentenceOf(error)}.`;
    find("because").textContent = "";
    find("versions").hidden = true;
    find("entries").replaceChildren();
  }
  allow();
}

function show(rollout) {
  phase = String(rollout.phase).replace("ROLLOUT_PHASE_", "");
  meant = rollout.candidate === "0" ? rollout.stable : rollout.candidate;
  find("phase").textContent = plain(phase, "");
  const candidate = rollout.candidate !== "0" && `version ${rollout.candidate}`;
  const shadow = rollout.shadowPercent;
  const held = rollout.held ? ", where an operator holds it" : "";
  const parts = [
    `Version ${rollout.stable} is stable`,
    rollout.percent > 0 && candidate && `${candidate} answers ${percent(rollout.percent)} of the users${held}`,
    shadow > 0 && candidate && `${candidate} answers ${percent(shadow)} of the requests unseen`,
    PHASES[phase],
  ];
  find("standing").textContent = `${parts.filter(Boolean).join("; ")}.`;
  find("because").textContent = [rollout.reason, rollout.note].filter(Boolean).join(" · ");
  const entries = rollout.history.slice(-ENTRIES).reverse();
  find("entries").replaceChildren(
    ...entries.map(({ time, text }) =>
      element("li", {}, text, " ", element("time", { class: "quiet", title: moment(time) }, ago(time))),
    ),
  );
}

// Gateways report versions that have been and gone for a while, too.
function matters({ version, calls, shadowCalls }, { stable, candidate }) {
  return version === stable || version === candidate || calls !== "0" || shadowCalls !== "0";
}

function showVersions(versions) {
  find("versions").hidden = versions.length === 0;
  find("versions").tBodies[0].replaceChildren(
    ...versions.map((figures) => {
      const calls = figures.calls !== "0";
      const cells = [
        rate(figures.callsPerSecond),
        calls ? ms(figures.p50Ms) : "–",
        calls ? ms(figures.p99Ms) : "–",
        String(Number(figures.errors) + Number(figures.shadowErrors)),
        figures.shadowCalls,
        figures.overlap === undefined ? "–" : percent(Math.round(100 * figures.overlap)),
      ];
      const version = element("th", { scope: "row" }, figures.version);
      return element("tr", {}, version, ...cells.map((cell) => element("td", {}, cell)));
    }),
  );
}

const may = (id) => Boolean(offered) && !busy && MAY[id].includes(phase) && find("key").value !== "";

// Not `disabled`, which would take the focus away from a button that was just pressed.
function allow() {
  for (const id of Object.keys(MAY)) find(id).setAttribute("aria-disabled", String(!may(id)));
  const possible = NAMES.filter(([id]) => MAY[id].includes(phase)).map(([, name]) => name);
  const key = "with the operator's key, which the state folder has in the file operator_token";
  if (offered === false) {
    say("may", "Promoting and rolling back are for the machine itself: other machines reach this gateway.", "quiet");
  } else if (possible.length) {
    say("may", `You can ${possible.join(" or ")}, ${key}.`, "quiet");
  } else {
    say("may", "There is nothing to promote or to roll back now.", "quiet");
  }
}

async function operate(id, method, message, question) {
  if (!may(id) || !confirm(question)) return;
  busy = true;
  allow();
  say("operated", "");
  try {
    // Nowhere but in the field: it goes with the page.
    const key = find("key").value;
    if (!/^[ -~]+$/.test(key)) throw new Failure("invalid_argument", "an operator's key has no such characters");
    const headers = { "riptide-operator-token": key };
    show((await call(`Rollouts/${method}`, message, headers)).rollout);
    say("operated", `${method === "Promote" ? "Promoted" : "Rolled back"}: see above.`);
  } catch (error) {
    say("operated", sentenceOf(error), "error");
  } finally {
    busy = false;
    allow();
  }
}

export function begin() {
  find("operate").addEventListener("submit", (event) => event.preventDefault());
  find("key").addEventListener("input", allow);
  find("promote").addEventListener("click", () =>
    operate("promote", "Promote", { version: meant }, `Make version ${meant} the stable version for all users?`),
  );
  find("roll-back").addEventListener("click", () =>
    operate("roll-back", "RollBack", { version: meant, reason: find("why").value }, `Roll version ${meant} back?`),
  );
}
