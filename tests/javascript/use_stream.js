// A page with @langchain/react's useStream. Arguments: the service's address, the graph, the input and the answer to
// its question, as JSON. The connection breaks once, in the middle of the answer.
import { JSDOM } from "jsdom";

const [apiUrl, assistantId, input, answer] = [...process.argv.slice(2, 4), ...process.argv.slice(4).map(JSON.parse)];
const dom = new JSDOM("<div id=root></div>", { url: apiUrl });
for (const [name, value] of Object.entries({ window: dom.window, document: dom.window.document, navigator: dom.window.navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useStream } = await import("@langchain/react");

const network = { broken: 0, mayBreak: false };
const send = globalThis.fetch;
globalThis.fetch = async (...request) => {
  const response = await send(...request);
  if (!String(request[0]).includes("/stream/events")) return response;
  const decoder = new TextDecoder();
  const breaking = new TransformStream({
    transform(chunk, controller) {
      if (network.mayBreak && !network.broken && decoder.decode(chunk).includes("text-delta")) {
        network.broken += 1;
        controller.error(new Error("the network is gone"));
      } else controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(breaking), response);
};

let stream;
const Page = () => {
  stream = useStream({ apiUrl, assistantId });
  return null;
};
const until = async (isTrue) => {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
};

const root = createRoot(dom.window.document.getElementById("root"));
root.render(createElement(Page));
await until(() => stream && !stream.isThreadLoading);
stream.submit(input);
await until(() => stream.interrupts.length && !stream.isLoading);
const question = stream.interrupts[0].value;
network.mayBreak = true;
stream.respond(answer);
await until(() => !stream.interrupts.length && !stream.isLoading && stream.values.final_answer);

const { messages, toolCalls, interrupts, error, values } = stream;
console.log(
  JSON.stringify({
    question,
    messages: messages.map((message) => [message.getType(), message.text]),
    tool_calls: toolCalls.map((call) => [call.name, call.status]),
    interrupts: interrupts.length,
    error: error ? String(error) : null,
    final_answer: values.final_answer,
    broken: network.broken,
  }),
);
process.exit(0);
