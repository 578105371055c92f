// Commands as one types them, each with a button that copies it. What is copied is what is shown: a sign that
// nobody would see is as visible in the clipboard as on the page.

const COPIED_FOR_MS = 2000;

/** Show a command with its button. */
function command(text) {
  const code = make("code", {}, logText(text));
  const button = make("button", { type: "button", class: "copy", title: "Copy", "aria-label": `Copy ${code.textContent}` }, shape("copy"), shape("copied"));
  button.addEventListener("click", () => copy(code, button));
  return make("span", { class: "command" }, code, button);
}

async function copy(code, button) {
  const copied = (await intoClipboard(code.textContent)) || bySelection(code);
  announce(copied ? `Copied: ${code.textContent}` : "Selected, but not copied: press Ctrl and C, or Command and C.");
  if (!copied) return;
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), COPIED_FOR_MS);
}

/** Return whether the browser let us: it does so on this machine, over HTTPS and in a file, and may ask. */
async function intoClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Select the command and copy it the old way; where that fails too, it stays selected for the reader's keys. */
function bySelection(code) {
  getSelection().selectAllChildren(code);
  return document.execCommand("copy");
}

/** Have screen readers say it; a new element, so that the same is said again. */
function announce(text) {
  byId("said").replaceChildren(make("span", {}, text));
}

/** Give the commands that the template holds their buttons. */
function addCopyButtons() {
  for (const code of document.querySelectorAll("code[data-command]")) code.replaceWith(command(code.textContent));
}
