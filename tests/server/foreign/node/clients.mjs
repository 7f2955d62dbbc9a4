// What OpenAI's client and the AI SDK make of a server's answers, as one JSON object on standard output.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = `${process.argv[2]}/v1`;
const question = [{ role: "user", content: "What is 19 + 23?" }];
const numbers = { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["a", "b"] };
const Person = z.object({ name: z.string(), age: z.number().int() });
const said = {};

const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const tools = [{ type: "function", function: { name: "add", parameters: numbers } }];

const stream = client.chat.completions.stream({ model: "default", messages: question, tools, stream_options: { include_usage: true } });
const streamed = await stream.finalChatCompletion();
said.streamedCall = JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments);
said.usage = streamed.usage.completion_tokens > 0;

const format = zodResponseFormat(Person, "person");
const parsed = await client.chat.completions.parse({ model: "default", messages: [{ role: "user", content: "Who?" }], response_format: format });
said.parsed = parsed.choices[0].message.parsed;

const runner = client.chat.completions.runTools({
  model: "default",
  messages: question,
  tools: [{ type: "function", function: { name: "add", parameters: numbers, parse: JSON.parse, function: ({ a, b }) => String(a + b) } }],
});
said.ranTools = await runner.finalContent();

const response = client.responses.stream({ model: "default", input: "Hi" });
said.responses = (await response.finalResponse()).output_text;

try {
  await client.chat.completions.create({ model: "nobody", messages: question });
} catch (error) {
  said.error = error.constructor.name;
}

const provider = createOpenAICompatible({ name: "mlx-agent", baseURL, supportsStructuredOutputs: true, includeUsage: true });
const model = provider("default");
const add = tool({ inputSchema: z.object({ a: z.number().int(), b: z.number().int() }), execute: async ({ a, b }) => a + b });
said.aiText = (await generateText({ model, tools: { add }, stopWhen: stepCountIs(3), prompt: question[0].content })).text;
said.aiObject = (await generateObject({ model, schema: Person, prompt: "Who?" })).object;
const reply = streamText({ model, prompt: "Hi" });
said.aiStream = "";
for await (const text of reply.textStream) said.aiStream += text;
said.aiUsage = (await reply.usage).outputTokens > 0;

console.log(JSON.stringify(said));
