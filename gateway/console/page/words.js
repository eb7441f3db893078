// How figures, times and names are said.

const UNITS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export const DEGRADED = {
  COLD_START: "Nothing is known of this user that the model could use: these are popular items.",
  MODEL_UNAVAILABLE: "The model did not answer in time: this is the user's last page, or popular items.",
  STORE_UNAVAILABLE: "The feature store did not answer: these are popular items, and seen ones may be among them.",
  STALE_VECTOR: "The user's vector is older than it may be: this page is for what they did until then.",
};

// Where the shares of users and of requests do not say it.
export const PHASES = {
  IDLE: "there is no rollout",
  CHECK: "the candidate's files are checked",
  LOAD: "Triton loads the candidate",
  PROVE: "the candidate answers golden requests",
  RETIRE: "it was the candidate, and the version before is still loaded",
  ROLLED_BACK: "the candidate was rolled back",
  EXPERIMENT: "it is an experiment",
};

export const EVENTS = ["VIEW", "CLICK", "PLAY", "READ", "LIKE", "SAVE", "SHARE", "RATE", "ADD_TO_CART", "PURCHASE"];

// `add to cart` for EVENT_TYPE_ADD_TO_CART; a value that this page does not know as its number.
export const plain = (name, prefix) => String(name).replace(prefix, "").toLowerCase().replaceAll("_", " ");

// Figures that are none come as strings: "NaN".
export const ms = (value) => Number(value).toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

// With a space that does not break.
export const percent = (value) => `${value}\u00a0%`;

export const rate = (value) => Number(value).toFixed(value >= 10 ? 0 : 1);

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export function ago(seconds) {
  const past = seconds - Date.now() / 1000;
  const [unit, length] = UNITS.find(([, length]) => Math.abs(past) >= length) ?? ["second", 1];
  return RELATIVE.format(Math.trunc(past / length), unit);
}

export const moment = (seconds) => new Date(seconds * 1000).toLocaleString();
