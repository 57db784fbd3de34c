// LangChain.js's client of LangServe's routes. Arguments: the graph's address and the input, as JSON.
import { RemoteRunnable } from "langchain-core-0.3/runnables/remote";

const [url, input] = [process.argv[2], JSON.parse(process.argv[3])];
const graph = new RemoteRunnable({ url });

const texts = (messages) => messages.map((message) => [message.getType(), message.content]);
const collect = async (stream) => {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
};

const invoked = await graph.invoke(input);
const configurable = { thread_id: invoked.thread_id };
const again = await graph.invoke(input, { configurable });
const batch = await graph.batch([input]);
const chunks = await collect(await graph.stream(input));
const events = await collect(graph.streamEvents(input, { version: "v2" }));
const patches = await collect(graph.streamLog(input));
let refusal = "";
try {
  await graph.invoke({ task: "" });
} catch (error) {
  refusal = error.message;
}

console.log(
  JSON.stringify({
    invoked: { ...invoked, message_list: texts(invoked.message_list) },
    again: { thread_id: again.thread_id, turns: again.message_list.length },
    batch: batch.map((output) => output.final_answer),
    steps: chunks.flatMap((chunk) => Object.keys(chunk)),
    streamed: chunks.at(-1).output.final_answer,
    tools: events.filter((event) => event.event === "on_tool_end").map((event) => event.name),
    last_event: events.at(-1).data.output.final_answer,
    logged: patches.reduce((log, patch) => log.concat(patch)).ops.length,
    refusal,
  }),
);
