// Runs a graph over LangServe's stream, shows the output before the steps, keeps the thread, and answers what
// the run waits for.
const find = (id) => document.getElementById(id);
const write = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
const format = (value) => JSON.stringify(value, null, 2);
// The field of an output that answers, by graph.
const ANSWERS = ["response", "final_answer", "answer", "result", "output", "decision"];

let stream = null;

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = parse(find("input").value);
  if (input !== undefined) run(input);
});
find("new").addEventListener("click", () => {
  find("thread").value = "";
});
find("stop").addEventListener("click", () => stream?.abort());
find("questions").addEventListener("submit", (event) => {
  event.preventDefault();
  const answers = {};
  for (const field of find("questions").querySelectorAll("textarea")) {
    answers[field.name] = parse(field.value);
    if (answers[field.name] === undefined) return;
  }
  run({ resume: answers });
});

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    find("error").textContent = `This is not valid JSON: ${error.message}`;
    return undefined;
  }
}

async function run(input) {
  const thread = find("thread").value.trim();
  const config = thread ? { configurable: { thread_id: thread } } : {};
  stream = new AbortController();
  find("error").textContent = "";
  find("output").hidden = find("questions").hidden = find("steps").hidden = true;
  find("step-list").replaceChildren();
  find("run").disabled = true;
  find("stop").hidden = false;
  try {
    const response = await fetch("../stream", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input, config }),
      signal: stream.signal,
    });
    if (!response.ok) throw new Error((await response.json()).message);
    find("thread").value = response.headers.get("X-Thread-Id") ?? thread;
    for await (const { event, data } of readEvents(response.body)) {
      if (event === "error") throw new Error(JSON.parse(data).message);
      if (event === "data") show(JSON.parse(data));
    }
  } catch (error) {
    find("error").textContent = error.name === "AbortError" ? "Stopped at the next step." : error.message;
  } finally {
    find("run").disabled = false;
    find("stop").hidden = true;
  }
}

// Server-sent events as the service writes them: each has one line of data.
async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.split("\r\n\r\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = block.split("\r\n").map((line) => line.split(/: (.*)/s));
      yield Object.fromEntries(fields);
    }
  }
}

function show(chunk) {
  for (const [name, value] of Object.entries(chunk)) {
    if (name === "output") {
      showOutput(value);
    } else {
      const step = document.createElement("details");
      step.append(write("summary", name), write("pre", format(value)));
      find("step-list").append(step);
      find("steps").hidden = false;
    }
  }
}

function showOutput(output) {
  find("thread").value = output.thread_id;
  find("result").textContent = format(output);
  const field = ANSWERS.find((name) => output[name]);
  const last = output.messages?.at(-1);
  const answer = field ? output[field] : last?.type === "ai" ? last.content : "";
  find("answer").textContent = typeof answer === "string" ? answer : format(answer);
  const questions = output.interrupts.flatMap(({ id, value, response_schema: schema }) => {
    const field = write("textarea", format(schema ? fill(schema, schema.$defs ?? {}) : ""));
    field.name = id;
    const label = write("label", "Answer");
    label.append(field);
    return [write("pre", format(value)), label];
  });
  find("questions").replaceChildren(write("h2", "The run waits for an answer"), ...questions, write("button", "Answer"));
  find("questions").hidden = questions.length === 0;
  find("output").hidden = false;
}

// An answer that fits a JSON Schema, for a person to change.
function fill(schema, definitions) {
  if (schema.$ref) return fill(definitions[schema.$ref.split("/").at(-1)], definitions);
  if ("default" in schema) return schema.default;
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants) return fill(variants[0], definitions);
  switch (schema.type) {
    case "object":
      return Object.fromEntries(
        Object.entries(schema.properties ?? {}).map(([name, each]) => [name, fill(each, definitions)]),
      );
    case "array":
      return [];
    case "boolean":
      return true;
    case "integer":
    case "number":
      return schema.minimum ?? 0;
    case "null":
      return null;
    default:
      return "";
  }
}
