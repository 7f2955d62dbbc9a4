// The live view of the engine, out of /metrics.

import { element } from "/page/markdown.js";
import { get } from "/page/wire.js";

let before = null;

export async function showEngine(place, key) {
  let text;
  try {
    text = await (await get("/metrics", key)).text();
  } catch (error) {
    place.replaceChildren(error.message);
    return;
  }
  const now = { at: performance.now(), tokens: total(text, "vllm:generation_tokens_total") };
  const seconds = before ? (now.at - before.at) / 1000 : Infinity;
  const speed = before ? Math.max(0, now.tokens - before.tokens) / seconds : 0;
  before = now;
  const used = total(text, "vllm:kv_cache_usage_perc");
  const asked = total(text, "vllm:prefix_cache_queries_total");
  const rows = {
    Running: total(text, "vllm:num_requests_running"),
    Waiting: total(text, "vllm:num_requests_waiting"),
    "Tokens a second": speed.toFixed(1),
    "Prefix hits": asked ? `${Math.round((100 * total(text, "vllm:prefix_cache_hits_total")) / asked)} %` : "none",
    "KV in use": `${Math.round(100 * used)} %`,
  };
  const list = element("dl", Object.entries(rows).flatMap(([name, value]) => [element("dt", [name]), element("dd", [String(value)])]));
  const meter = element("meter", []);
  meter.value = used;
  meter.title = "KV in use";
  place.replaceChildren(list, meter);
}

function total(text, name) {
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
