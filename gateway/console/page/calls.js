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

export const call = async (method, message, headers = {}) =>
  JSON.parse(
    await text(`/riptide.v1.${method}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Connect-Protocol-Version": "1", ...headers },
      body: JSON.stringify(message),
    }),
  );

export const get = async (path) => JSON.parse(await text(path));

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
  let refusal;
  try {
    refusal = JSON.parse(said);
  } catch {
    refusal = { code: "unknown", message: said.trim() || answer.statusText };
  }
  throw new Failure(refusal.code, refusal.message);
}
