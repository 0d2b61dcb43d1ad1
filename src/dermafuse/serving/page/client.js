// The server, as the page asks it: /v1 of where the page came from, and nobody else.

let key = "";

/** What the server has refused, in its own sentence. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function useKey(given) {
  key = given;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(problem.detail ?? problem.error ?? `${answer.status}`, answer.status);
}

function form(file, given) {
  const parts = new FormData();
  parts.append("image", file, "image"); // the file's own name stays here
  for (const [name, value] of Object.entries(given)) parts.append(name, value);
  return { method: "POST", body: parts };
}

export const readModel = async () => (await ask("/v1/model")).json();
export const readSamples = async () => (await (await ask("/v1/samples")).json()).samples;
export const readSample = async (number) => (await ask(`/v1/samples/${number}`)).blob();
export const explain = async (file, given) => (await ask("/v1/predict?explain=true", form(file, given))).json();
// What flips and quarter turns of the image change; null of an older server.
export const stability = async (file, given) =>
  (await (await ask("/v1/predict?stability=true", form(file, given))).json()).stability ?? null;
// [{ label, name, distance, thumbnail }], the nearest first.
export const similar = async (file, given) => (await (await ask("/v1/similar", form(file, given))).json()).similar;

/** Whether the server takes requests again. */
export async function isReady() {
  try {
    return (await fetch("/v2/health/ready")).ok;
  } catch {
    return false;
  }
}
