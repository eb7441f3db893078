// Making and finding elements. What is shown is always text, never markup: titles are anyone's.

export const find = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// What only a screen reader says.
export const unseen = (text) => element("span", { class: "unseen" }, text);

// Says it in an element, once: a screen reader would read the same sentence again with each look.
export function say(id, sentence, kind = "") {
  const place = find(id);
  if (place.className !== kind) place.className = kind;
  if (place.textContent !== sentence) place.textContent = sentence;
}

// Does the work now and again `pauseMs` after it ended, well or not, while the page can be seen.
export async function again(pauseMs, work) {
  for (;;) {
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
      continue;
    }
    try {
      await work();
    } catch (error) {
      reportError(error);
    }
    await new Promise((over) => setTimeout(over, pauseMs));
  }
}
