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

// Does the work now and again `pauseMs` after it ended, while the page can be seen.
export async function again(pauseMs, work) {
  for (;;) {
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
      continue;
    }
    await work();
    await new Promise((over) => setTimeout(over, pauseMs));
  }
}
