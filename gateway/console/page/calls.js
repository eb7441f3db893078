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

  // Whether what was asked for may have happened all the same.
  get unsure() {
    return ["unavailable", "deadline_exceeded", "canceled", "unknown", "internal"].includes(this.code);
  }
}

// What to say of an error. What is no Failure is a fault of this page, and goes to the browser's log as well.
export function sentenceOf(error) {
  if (error instanceof Failure) return error.message;
  reportError(error);
  return "this page does not understand the answer";
}

export const call = async (method, message, headers = {}) =>
  parsed(
    await text(`/riptide.v1.${method}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Connect-Protocol-Version": "1", ...headers },
      body: JSON.stringify(message),
    }),
  );

export const get = async (path) => parsed(await text(path));

// A proxy in between may say 200 and something of its own.
function parsed(said) {
  try {
    return JSON.parse(said);
  } catch {
    throw new Failure("unknown", "what was answered is no JSON, and so not the gateway's");
  }
}

export async function text(path, options = {}) {
  let answer, said;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    said = await answer.text();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Failure("deadline_exceeded", "the gateway has not answered in time");
    throw new Failure("unavailable", "the gateway does not answer");
  }
  if (answer.ok) return said;
  let refusal = null;
  try {
    refusal = JSON.parse(said);
  } catch {
    // It is said in plain text.
  }
  const { code = "unknown", message = said.trim() || answer.statusText } = Object(refusal);
  throw new Failure(code, message);
}
