// Requests to the server that this page came from.

export class APIError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function get(path, key) {
  const response = await fetch(path, { headers: authorization(key) });
  if (!response.ok) throw await errorOf(response);
  return response;
}

// Yields the chunks of a chat completion; aborting the signal closes the connection, which ends the request.
export async function* streamChat(body, key, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...authorization(key) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  for await (const line of linesOf(response.body.pipeThrough(new TextDecoderStream()))) {
    if (line === "data: [DONE]") return;
    if (!line.startsWith("data: ")) continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new APIError(500, chunk.error.message);
    yield chunk;
  }
  throw new APIError(500, "The connection ended before the answer did.");
}

async function* linesOf(stream) {
  const reader = stream.getReader();
  let rest = "";
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

async function errorOf(response) {
  const told = await response.json().catch(() => null);
  return new APIError(response.status, told?.error?.message ?? `${response.status} ${response.statusText}`);
}

function authorization(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}
