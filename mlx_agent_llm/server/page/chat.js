// The chats of this browser, and the one that is shown. All of it is kept in localStorage, the key in sessionStorage.

import { showEngine } from "/page/engine.js";
import { element, render } from "/page/markdown.js";
import { get, streamChat } from "/page/wire.js";

const STORE = "mlx-agent-chats";
const SETTINGS = ["model", "temperature", "max_tokens", "system", "tools", "schema"];
const at = (id) => document.getElementById(id);
const key = () => at("key").value;

const state = load();
let running = null;

function load() {
  const kept = JSON.parse(localStorage.getItem(STORE) ?? "null");
  return kept ?? { chats: [{ turns: [] }], current: 0, settings: {} };
}

function save() {
  localStorage.setItem(STORE, JSON.stringify(state));
}

const turnsNow = () => state.chats[state.current].turns;

// What the model is told of a turn; counts and reasoning are for the reader.
function messageOf(turn) {
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.id, content: turn.text };
  const message = { role: turn.role, content: turn.text };
  if (turn.calls?.length) {
    message.tool_calls = turn.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  }
  return message;
}

function requestBody() {
  const system = at("system").value.trim();
  const body = { model: at("model").value || "default", messages: turnsNow().map(messageOf) };
  if (system) body.messages.unshift({ role: "system", content: system });
  if (at("temperature").value) body.temperature = Number(at("temperature").value);
  if (at("max_tokens").value) body.max_tokens = Number(at("max_tokens").value);
  const tools = read("tools", "Tools");
  if (tools) body.tools = tools.map((tool) => (tool.type === "function" ? tool : { type: "function", function: tool }));
  const schema = read("schema", "The schema");
  if (schema) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  return body;
}

function read(id, name) {
  const text = at(id).value.trim();
  try {
    return text ? JSON.parse(text) : null;
  } catch (error) {
    throw new Error(`${name}: no JSON: ${error.message}`);
  }
}

async function answer() {
  let body;
  try {
    body = requestBody();
  } catch (error) {
    return tell(error.message);
  }
  tell("");
  const chat = state.chats[state.current];
  const turn = { role: "assistant", text: "", reasoning: "", calls: [], isJSON: Boolean(body.response_format) };
  chat.turns.push(turn);
  const node = draw(turn, chat.turns.length - 1);
  running = { abort: new AbortController(), chat };
  showButtons();
  const begin = performance.now();
  let frame = 0;
  const redraw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      fill(node, turn, chat.turns.indexOf(turn));
      follow();
    });
  };
  try {
    for await (const chunk of streamChat(body, key(), running.abort.signal)) {
      if (chunk.usage) turn.usage = { ...chunk.usage, seconds: (performance.now() - begin) / 1000 };
      for (const choice of chunk.choices) add(turn, choice);
      redraw();
    }
  } catch (error) {
    turn.ended = error.name === "AbortError" ? "stopped" : "failed";
    if (error.name !== "AbortError") tell(error.message);
    if (error.status === 401) askForKey();
    if (turn.calls.length) turn.calls = []; // of which the last one may be half a call
    if (!turn.text && !turn.reasoning) chat.turns.splice(chat.turns.indexOf(turn), 1);
  }
  running = null;
  save();
  showButtons();
  show();
}

function add(turn, { delta, finish_reason }) {
  turn.text += delta.content ?? "";
  turn.reasoning += delta.reasoning_content ?? "";
  for (const call of delta.tool_calls ?? []) {
    turn.calls[call.index] ??= { id: call.id, name: call.function.name, arguments: "" };
    turn.calls[call.index].arguments += call.function.arguments ?? "";
  }
  if (finish_reason) turn.ended = finish_reason;
}

function draw(turn, index) {
  const node = element("article", [], `turn ${turn.role}`);
  fill(node, turn, index);
  at("turns").append(node);
  follow();
  return node;
}

function fill(node, turn, index) {
  const parts = [];
  if (turn.reasoning) {
    const folded = element("details", [element("summary", ["Reasoning"]), element("div", [turn.reasoning])], "reasoning");
    folded.open = node.querySelector(".reasoning")?.open ?? false;
    parts.push(folded);
  }
  const body = element("div", [], "body");
  if (turn.role === "tool") body.append(element("span", [`Result of ${turn.name}`], "name"), element("pre", [turn.text]));
  else if (turn.role === "user") body.append(turn.text);
  else if (turn.isJSON && turn.text) body.append(element("pre", [element("code", [pretty(turn.text)])]));
  else body.append(render(turn.text));
  parts.push(body, ...(turn.calls ?? []).map((call) => callNode(call, index)), foot(turn, index));
  node.replaceChildren(...parts);
}

function callNode(call, index) {
  const node = element("div", [element("span", [call.name], "name"), element("pre", [pretty(call.arguments)])], "call");
  const isAnswered = turnsNow().slice(index + 1).some((turn) => turn.id === call.id);
  if (running || isAnswered) return node;
  const result = element("input", []);
  Object.assign(result, { placeholder: "What the tool returned", ariaLabel: `Result of ${call.name}` });
  const send = element("button", ["Give result"]);
  send.onclick = () => giveResult(call, result.value);
  node.append(result, " ", send);
  return node;
}

// The model goes on once all calls of its turn have their results.
function giveResult(call, text) {
  turnsNow().push({ role: "tool", id: call.id, name: call.name, text });
  save();
  show();
  const calls = turnsNow().findLast((turn) => turn.role === "assistant").calls;
  if (calls.every((one) => turnsNow().some((turn) => turn.id === one.id))) answer();
}

function foot(turn, index) {
  const parts = [];
  if (turn.usage) {
    const { prompt_tokens, prompt_tokens_details, completion_tokens, completion_tokens_details, seconds } = turn.usage;
    const thought = completion_tokens_details?.reasoning_tokens;
    parts.push(`${prompt_tokens} prompt tokens, ${prompt_tokens_details.cached_tokens} cached`);
    parts.push(`${completion_tokens} written${thought ? `, ${thought} of them reasoning` : ""}`);
    parts.push(`${(completion_tokens / seconds).toFixed(1)} a second`);
  }
  if (turn.ended && turn.ended !== "stop") parts.push(turn.ended.replace("_", " "));
  const nodes = parts.map((part) => element("span", [part]));
  if (!running) {
    const fork = element("button", ["Fork"]);
    fork.title = "A new chat that goes on from here";
    fork.onclick = () => forkAt(index);
    nodes.push(fork);
  }
  return element("div", nodes, "foot");
}

function forkAt(index) {
  open(state.chats.push({ turns: structuredClone(turnsNow().slice(0, index + 1)) }) - 1);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function open(index) {
  running?.abort.abort();
  state.current = index;
  save();
  show();
}

function forget(index) {
  running?.abort.abort();
  state.chats.splice(index, 1);
  if (!state.chats.length) state.chats.push({ turns: [] });
  state.current = Math.min(state.current, state.chats.length - 1);
  save();
  show();
}

function show() {
  at("turns").replaceChildren();
  turnsNow().forEach(draw);
  at("chats").replaceChildren(...state.chats.map((chat, index) => {
    const name = element("button", [chat.turns.find((turn) => turn.role === "user")?.text || "Empty chat"], "name");
    if (index === state.current) name.classList.add("current");
    name.onclick = () => open(index);
    const drop = element("button", ["×"], "forget");
    drop.title = "Forget this chat";
    drop.onclick = () => forget(index);
    return element("li", [name, drop]);
  }));
}

function showButtons() {
  at("send").hidden = Boolean(running);
  at("stop").hidden = !running;
}

function follow() {
  at("turns").scrollTop = at("turns").scrollHeight;
}

function tell(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

function askForKey() {
  at("key-label").hidden = false;
  at("key").focus();
}

async function listModels() {
  try {
    const { data } = await (await get("/v1/models", key())).json();
    const chats = data.filter((model) => model.capabilities.includes("completion"));
    at("model").replaceChildren(...chats.map((model) => new Option(model.id)));
    at("model").value = chats.some((model) => model.id === state.settings.model) ? state.settings.model : chats[0].id;
    tell("");
  } catch (error) {
    tell(error.message);
    if (error.status === 401) askForKey();
  }
}

function begin() {
  for (const id of SETTINGS) {
    at(id).value = state.settings[id] ?? "";
    at(id).addEventListener("change", () => {
      state.settings[id] = at(id).value;
      save();
    });
  }
  at("key").value = sessionStorage.getItem("mlx-agent-key") ?? "";
  at("key").addEventListener("change", () => {
    sessionStorage.setItem("mlx-agent-key", key());
    listModels();
  });
  at("new").onclick = () => open(state.chats.push({ turns: [] }) - 1);
  at("stop").onclick = () => running?.abort.abort();
  at("text").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at("form").requestSubmit();
    }
  };
  at("form").onsubmit = (event) => {
    event.preventDefault();
    const text = at("text").value.trim();
    if (!text || running) return;
    at("text").value = "";
    turnsNow().push({ role: "user", text });
    save();
    show();
    answer();
  };
  show();
  listModels();
  const tick = () => document.hidden || showEngine(at("engine"), key());
  tick();
  setInterval(tick, 1000);
}

begin();
