// The console: shows a user and their page, records what is clicked, and looks at the gateway every two seconds.

import { Failure, call, get } from "./calls.js";
import { again, element, find } from "./dom.js";
import * as live from "./live.js";
import * as rollout from "./rollout.js";
import { clear, showHistory, showPage } from "./user.js";
import { EVENTS, counted, plain } from "./words.js";

const PAUSE_MS = 2000;

let turn = 0; // of the newest question: answers to older ones are not shown
let shown = { user: null, ranks: null };

// Asks for a user and shows the answers; `said` is what has happened before.
async function show(user, said = "") {
  const mine = ++turn;
  const asked = {
    userId: user,
    limit: Number(find("limit").value),
    diversity: Number(find("diversity").value),
    explain: find("explain").checked,
  };
  find("page").setAttribute("aria-busy", "true");
  let described, answer;
  try {
    [described, answer] = await Promise.all([describe(user), call("Recommender/Recommend", asked)]);
  } catch (error) {
    if (mine !== turn) return;
    if (user !== shown.user) {
      clear();
      shown = { user, ranks: null };
    }
    find("page").removeAttribute("aria-busy");
    fail(error, said);
    if (error.passes) setTimeout(() => mine === turn && show(user, said), PAUSE_MS);
    return;
  }
  if (mine !== turn) return;
  showHistory(described);
  const change = showPage(answer, user === shown.user ? shown.ranks : null, record);
  find("page").removeAttribute("aria-busy");
  const known = user === shown.user && shown.ranks !== null;
  shown = { user, ranks: new Map(answer.items.map(({ itemId, rank }) => [itemId, rank])) };
  const difference = known
    ? `The page has ${counted(change.fresh, "new item")}, ${change.moved} moved.`
    : `${counted(answer.items.length, "item")} for user ${user}.`;
  tell([said, difference].filter(Boolean).join(" "));
}

// A user of whom nothing is stored is no mistake: they get a page, too.
async function describe(user) {
  try {
    return await call("Recommender/DescribeUser", { userId: user });
  } catch (error) {
    if (error.code === "not_found") return null;
    throw error;
  }
}

async function record(item) {
  const user = shown.user;
  const type = find("type").value;
  const what = `${plain(type, "EVENT_TYPE_")} on “${item.title || item.itemId}”`;
  try {
    const answer = await call("Recommender/RecordEvents", { events: [{ userId: user, itemId: item.itemId, type }] });
    const said = answer.recorded ? `Recorded: ${what}.` : `Recorded before: ${what}.`;
    if (user === shown.user) await show(user, said);
  } catch (error) {
    fail(error, `Not recorded: ${what}.`);
  }
}

function tell(sentence) {
  find("news").className = "";
  find("news").textContent = sentence;
}

function fail(error, said) {
  if (!(error instanceof Failure)) throw error;
  find("news").className = "error";
  const sentence = error.passes ? `${error.message}; trying again` : error.message;
  find("news").textContent = [said, sentence].filter(Boolean).join(" ");
}

const userOfLink = () => new URLSearchParams(location.hash.slice(1)).get("user");

function go(user) {
  find("user").value = user;
  history.replaceState(null, "", `#${new URLSearchParams({ user })}`);
  show(user);
}

async function offerUsers() {
  const { userIds } = await get("/console/users");
  userIds.sort(new Intl.Collator("en", { numeric: true }).compare);
  find("users").replaceChildren(...userIds.map((value) => element("option", { value })));
  if (shown.user === null && turn === 0 && userIds.length) go(userIds[0]);
}

async function look() {
  try {
    await live.look();
    if (!find("users").children.length) await offerUsers();
    find("connection").textContent = "connected";
    find("connection").className = "";
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    live.forget();
    find("connection").textContent = `${error.message}; trying again`;
    find("connection").className = "error";
  }
}

function begin() {
  for (const name of EVENTS) {
    find("type").append(element("option", { value: `EVENT_TYPE_${name}` }, plain(name, "")));
  }
  find("type").value = "EVENT_TYPE_CLICK";
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    go(find("user").value);
  });
  for (const id of ["limit", "diversity", "explain"]) {
    find(id).addEventListener("change", () => shown.user !== null && show(shown.user));
  }
  find("diversity").addEventListener("input", () => {
    find("diversity-said").textContent = find("diversity").value;
  });
  addEventListener("hashchange", () => userOfLink() && go(userOfLink()));
  live.show();
  rollout.begin();
  if (userOfLink()) go(userOfLink());
  again(PAUSE_MS, look);
  again(PAUSE_MS, rollout.look);
  document.addEventListener("visibilitychange", live.forget);
}

begin();
