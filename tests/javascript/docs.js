// A person who opens the API's documentation. Argument: the page's address.
import { JSDOM } from "jsdom";

const fetched = [];
const page = await JSDOM.fromURL(process.argv[2], {
  runScripts: "dangerously",
  resources: "usable",
  pretendToBeVisual: true,
  beforeParse(window) {
    window.fetch = (request, options) => {
      const url = new URL(request.url ?? request, window.location.href);
      fetched.push(url.href);
      return fetch(url, options);
    };
    Object.assign(window, { Headers, Request, Response, FormData });
  },
});
const { document } = page.window;
await new Promise((resolve) => {
  const look = () => document.querySelector(".opblock-tag") && (clearInterval(timer), resolve());
  const timer = setInterval(look, 50);
});
const tags = [...document.querySelectorAll(".opblock-tag")].map((tag) => tag.dataset.tag);
const elements = [...document.querySelectorAll("[src], link[href]")];
const loaded = elements.map((element) => element.src || element.href);
console.log(JSON.stringify({ tags, loaded: [...loaded, ...fetched] }));
process.exit(0);
