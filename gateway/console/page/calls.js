// Calls of the gateway: its gRPC messages in protobuf's JSON mapping, in the form of the Connect protocol.

const TIMEOUT_MS = 5000;

// A call without an answer. `message` is a sentence; `code` is Connect's name of the gRPC status.
export class Failure extends Error {
  constructor(code, sentence) {
    super(sentence);
    this.code = code;
  }

  // Whether the same call may have an answer later.
  get passes() {
    return ["unavailable", "deadline_exceeded", "resource_exhausted", "canceled"].includes(this.code);
  }
}

export const call = (method, message, headers = {}) =>
  ask(`/riptide.v1.${method}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Connect-Protocol-Version": "1", ...headers },
    body: JSON.stringify(message),
  }).then((answer) => answer.json());

export const get = (path) => ask(path, {}).then((answer) => answer.json());

export const text = (path) => ask(path, {}).then((answer) => answer.text());

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Failure("deadline_exceeded", "the gateway has not answered in time");
    throw new Failure("unavailable", "the gateway does not answer");
  }
  if (answer.ok) return answer;
  const said = await answer.text();
  let refusal;
  try {
    refusal = JSON.parse(said);
  } catch {
    refusal = { code: "unknown", message: said.trim() || answer.statusText };
  }
  throw new Failure(refusal.code, refusal.message);
}
