// Markdown as elements: text only ever becomes text nodes, so that no answer can bring markup of its own.

const FENCE = /^(`{3,}|~{3,})\s*([\w+-]*)[^`]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const BEGINS = /^(#{1,6}\s|>|`{3,}|~{3,}|\s*([-*+]|\d{1,9}[.)])\s|(\s*[-*_]){3,}\s*$)/;
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|__(\S(?:.*?\S)?)__|\*(\S(?:.*?\S)?)\*|(?<!\w)_(\S(?:.*?\S)?)_(?!\w)|~~(.+?)~~|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>)\]]+)/;

// A text as a fragment of blocks; one that is not complete yet, as a stream shows it, is shown as far as it is.
export function render(text) {
  const fragment = document.createDocumentFragment();
  const lines = text.split("\n");
  while (lines.length) fragment.append(...block(lines));
  return fragment;
}

function block(lines) {
  const line = lines[0];
  const fence = FENCE.exec(line);
  if (fence) return [code(lines, fence[1], fence[2])];
  const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
  if (!line.trim()) return lines.shift(), [];
  if (heading) return lines.shift(), [element(`h${heading[1].length}`, inline(heading[2]))];
  if (/^(\s*[-*_]){3,}\s*$/.test(line)) return lines.shift(), [element("hr", [])];
  if (line.startsWith(">")) return [element("blockquote", [render(take(lines, (one) => one.startsWith(">")).map((one) => one.replace(/^> ?/, "")).join("\n"))])];
  if (ITEM.test(line)) return [list(lines)];
  if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[1] ?? "") && lines[1].includes("|")) return [table(lines)];
  return [paragraph(lines)];
}

function code(lines, mark, language) {
  lines.shift();
  const body = take(lines, (one) => !one.trimEnd().startsWith(mark));
  lines.shift();
  const inner = element("code", [body.join("\n")]);
  if (language) inner.dataset.language = language;
  return element("pre", [inner]);
}

function list(lines) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const whole = element(/\d/.test(mark) ? "ol" : "ul", []);
  if (/\d/.test(mark)) whole.start = parseInt(mark, 10);
  while (lines.length) {
    const item = ITEM.exec(lines[0]);
    if (!item || item[1].length < indent.length || /\d/.test(item[2]) !== /\d/.test(mark)) break;
    lines.shift();
    const inside = take(lines, (one) => one.startsWith(`${indent}  `) || (one.trim() && !BEGINS.test(one)));
    const nested = inside.map((one) => (one.startsWith(`${indent}  `) ? one.slice(indent.length + 2) : one));
    const rest = nested.findIndex((one) => BEGINS.test(one) || BEGINS.test(one.trimStart()));
    const own = rest < 0 ? nested : nested.slice(0, rest);
    const entry = element("li", inline([item[3], ...own].join("\n")));
    if (rest >= 0) entry.append(render(nested.slice(rest).join("\n")));
    whole.append(entry);
    if (lines.length > 1 && !lines[0].trim() && ITEM.test(lines[1])) lines.shift();
  }
  return whole;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const row = (line, kind) => element("tr", cells(line).map((cell) => element(kind, cell)));
  const head = element("thead", [row(lines.shift(), "th")]);
  lines.shift();
  return element("table", [head, element("tbody", take(lines, (one) => one.includes("|")).map((one) => row(one, "td")))]);
}

function paragraph(lines) {
  const first = lines.shift();
  return element("p", inline([first, ...take(lines, (one) => one.trim() && !BEGINS.test(one))].join("\n")));
}

function inline(text) {
  const found = INLINE.exec(text);
  if (!found) return text ? [text] : [];
  const before = text.slice(0, found.index);
  const [whole, , ticked, bold, bolder, italic, slanted, struck, label, target, address] = found;
  let node;
  if (ticked !== undefined) node = element("code", [ticked.trim()]);
  else if (bold ?? bolder) node = element("strong", inline(bold ?? bolder));
  else if (italic ?? slanted) node = element("em", inline(italic ?? slanted));
  else if (struck) node = element("del", inline(struck));
  else {
    node = element("a", label ? inline(label) : [address]);
    Object.assign(node, { href: target ?? address, rel: "noopener noreferrer", target: "_blank" });
  }
  return [...(before ? [before] : []), node, ...inline(text.slice(found.index + whole.length))];
}

function take(lines, belongs) {
  let count = lines.findIndex((one) => !belongs(one));
  if (count < 0) count = lines.length;
  return lines.splice(0, count);
}

export function element(name, children, className = "") {
  const node = document.createElement(name);
  node.append(...children);
  if (className) node.className = className;
  return node;
}
