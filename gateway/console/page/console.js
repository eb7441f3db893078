// The console: shows a user and their page, records what is clicked, and looks at the gateway every two seconds.

import { Failure, call, get, sentenceOf } from "./calls.js";
import { again, element, find, say } from "./dom.js";
import * as live from "./live.js";
import * as rollout from "./rollout.js";
import { clear, showHistory, showPage } from "./user.js";
import { EVENTS, counted, plain } from "./words.js";

const PAUSE_MS = 2000;

let turn = 0; // of the newest question: answers to older ones are not shown
let wanted = null; // the user of the newest question, and of the field
let shown = { user: null, ranks: null };

// Asks for the wanted user and shows the answers; `said` is what has happened before.
async function show(said = "") {
  const mine = ++turn;
  const user = wanted;
  const asked = {
    userId: user,
    limit: Number(find("limit").value),
    diversity: Number(find("diversity").value),
    explain: find("explain").checked,
  };
  find("page").setAttribute("aria-busy", "true");
  try {
    const [described, answer] = await Promise.all([describe(user), call("Recommender/Recommend", asked)]);
    if (mine === turn) present(user, described, answer, said);
  } catch (error) {
    if (mine !== turn) return;
    if (user !== shown.user) {
      clear();
      shown = { user, ranks: null };
    }
    const passes = error instanceof Failure && error.passes;
    fail(error, said, passes);
    if (passes) setTimeout(() => mine === turn && show(said), PAUSE_MS);
  } finally {
    if (mine === turn) find("page").removeAttribute("aria-busy");
  }
}

function present(user, described, answer, said) {
  showHistory(described);
  const change = showPage(answer, user === shown.user ? shown.ranks : null, record);
  const known = user === shown.user && shown.ranks !== null;
  shown = { user, ranks: new Map(answer.items.map(({ itemId, rank }) => [itemId, rank])) };
  const difference = known
    ? `The page has ${counted(change.fresh, "new item")}, ${change.moved} moved.`
    : `${counted(answer.items.length, "item")} for user ${user}.`;
  tell([said, difference].filter(Boolean).join(" "));
}

// A user of whom nothing is stored is no mistake: they get a page, too. Nor does the page need the history: a
// store that does not answer leaves popular items.
async function describe(user) {
  try {
    return await call("Recommender/DescribeUser", { userId: user });
  } catch (error) {
    return error.code === "not_found" ? null : { unknown: sentenceOf(error) };
  }
}

// Of the user whose page is shown; another may be on the way already, and is asked for again.
async function record(item) {
  const user = shown.user;
  const type = find("type").value;
  const what = `${plain(type, "EVENT_TYPE_")} on “${item.title || item.itemId}”`;
  const whose = () => (user === wanted ? "" : ` for user ${user}`);
  let answer;
  try {
    answer = await call("Recommender/RecordEvents", { events: [{ userId: user, itemId: item.itemId, type }] });
  } catch (error) {
    fail(error, `${error.unsure ? "May not be recorded" : "Not recorded"}: ${what}${whose()}.`);
    return;
  }
  await show(`${answer.recorded ? "Recorded" : "Recorded before"}: ${what}${whose()}.`);
}

const tell = (sentence) => say("news", sentence);

// `retried`: whether the same is asked again without anybody's doing.
function fail(error, said, retried = false) {
  const sentence = `${sentenceOf(error)}${retried ? "; trying again" : ""}`;
  say("news", [said, sentence].filter(Boolean).join(" "), "error");
}

const userOfLink = () => new URLSearchParams(location.hash.slice(1)).get("user");

function go(user) {
  wanted = user;
  find("user").value = user;
  history.replaceState(null, "", `#${new URLSearchParams({ user })}`);
  show();
}

// Until there are some. The first is shown if nobody has chosen, or is about to.
async function offerUsers() {
  if (find("users").children.length) return;
  try {
    const { userIds } = await get("/console/users");
    userIds.sort(new Intl.Collator("en", { numeric: true }).compare);
    find("users").replaceChildren(...userIds.map((value) => element("option", { value })));
    if (wanted !== null) return;
    tell("");
    const field = find("user");
    if (userIds.length && !field.value && field !== document.activeElement) go(userIds[0]);
  } catch (error) {
    if (wanted === null) fail(error, "Users to choose from are not known:", true);
  }
}

async function look() {
  try {
    await live.look();
    say("connection", "connected");
  } catch (error) {
    live.forget();
    say("connection", `${sentenceOf(error)}; trying again`, "error");
  }
}

function sayWhatIsRecorded() {
  find("pressing").textContent = `Records an event: ${plain(find("type").value, "EVENT_TYPE_")}`;
}

function begin() {
  for (const name of EVENTS) {
    find("type").append(element("option", { value: `EVENT_TYPE_${name}` }, plain(name, "")));
  }
  find("type").value = "EVENT_TYPE_CLICK";
  find("type").addEventListener("change", sayWhatIsRecorded);
  sayWhatIsRecorded();
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    go(find("user").value);
  });
  for (const id of ["limit", "diversity", "explain"]) {
    find(id).addEventListener("change", () => wanted !== null && show());
  }
  find("diversity").addEventListener("input", () => {
    find("diversity-said").textContent = find("diversity").value;
  });
  addEventListener("hashchange", () => userOfLink() && go(userOfLink()));
  live.show();
  rollout.begin();
  if (userOfLink()) go(userOfLink());
  again(PAUSE_MS, look);
  again(PAUSE_MS, offerUsers);
  again(PAUSE_MS, rollout.look);
  document.addEventListener("visibilitychange", live.forget);
}

begin();
