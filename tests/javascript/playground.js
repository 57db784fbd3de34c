// A person who uses a graph's playground: runs the example, answers what the run asks, and runs it again.
// Argument: the page's address.
import { JSDOM } from "jsdom";

const page = await JSDOM.fromURL(process.argv[2], {
  runScripts: "dangerously",
  resources: "usable",
  beforeParse(window) {
    window.fetch = (path, options) => fetch(new URL(path, window.location.href), options);
    // jsdom's own is none that Node's fetch takes.
    window.AbortController = AbortController;
    window.TextDecoder = TextDecoder;
  },
});
const { document } = page.window;
const find = (id) => document.getElementById(id);
await new Promise((resolve) => page.window.addEventListener("load", resolve));

const seen = [];
const press = async (button) => {
  button.click();
  await new Promise((resolve) => {
    const observer = new page.window.MutationObserver(() => {
      if (find("run").disabled) return;
      observer.disconnect();
      resolve();
    });
    observer.observe(find("run"), { attributes: true });
  });
  seen.push({
    error: find("error").textContent,
    answer: find("answer").textContent,
    asks: !find("questions").hidden,
    thread: find("thread").value,
    steps: [...find("step-list").querySelectorAll("summary")].map((step) => step.textContent),
  });
};

await press(find("run"));
await press(find("questions").querySelector("button"));
await press(find("run"));
find("input").value = "{";
find("run").click();
const sections = [...document.querySelectorAll("section")].map((section) => section.id);
console.log(JSON.stringify({ seen, sections, mistake: find("error").textContent }));
