// What is asked of the server, with the token of this tab: no cookie, so no other site's page can ask with it.

const TOKEN = "collection-sync token";
const NAME = "collection-sync name";
const WAIT_MS = 20000;

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function isSigned() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Write a text as the header's bytes: UTF-8. */
function asHeader(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** Return the answer, and throw a Refusal with the server's reason where it is none. */
async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: {
      "X-Admin-Token": asHeader(sessionStorage.getItem(TOKEN) ?? ""),
      "X-Actor": asHeader(sessionStorage.getItem(NAME) ?? ""),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(WAIT_MS),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Refusal(answer.status, reasonOf(answer, text));
  return JSON.parse(text);
}

/** Return why it was refused; a proxy on the way may answer in words of its own. */
function reasonOf({ status }, text) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : detail.map(({ msg }) => msg).join("; ");
  } catch {
    return `HTTP ${status}`;
  }
}
