// Renders /openapi.json. Every text goes in as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// `code` within a text becomes a code element; blank lines make paragraphs.
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((paragraph) =>
    element("p", {}, ...paragraph.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part))));
}

function resolve(spec, value) {
  if (!value || !value.$ref) return value || {};
  return value.$ref.slice(2).split("/").reduce((node, key) => node[key.replace(/~1/g, "/").replace(/~0/g, "~")], spec);
}

function typeOf(spec, schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.oneOf || schema.anyOf) return (schema.oneOf || schema.anyOf).map((one) => typeOf(spec, one)).join(" or ");
  const types = [].concat(schema.type || "any");
  if (types.includes("array")) return `list of ${typeOf(spec, schema.items)}`;
  return types.join(" or ");
}

function limits(schema) {
  const names = { minimum: "≥", maximum: "≤", minLength: "length ≥", maxLength: "length ≤", minItems: "items ≥", maxItems: "items ≤", pattern: "pattern", format: "format", const: "always" };
  const found = Object.entries(names).filter(([key]) => schema[key] !== undefined).map(([key, label]) => `${label} ${schema[key]}`);
  if (schema.enum) found.push(`one of ${schema.enum.join(", ")}`);
  return found.join("; ");
}

// One row per field, nested fields as a path.
function fieldRows(spec, schema, prefix, rows) {
  const resolved = resolve(spec, schema);
  const required = resolved.required || [];
  for (const [name, property] of Object.entries(resolved.properties || {})) {
    const nullable = (property.oneOf || property.anyOf || []).find((one) => one.type !== "null");
    const inner = resolve(spec, nullable || property);
    const path = `${prefix}${name}`;
    rows.push(element("tr", {},
      element("td", {}, element("code", {}, path), required.includes(name) ? "" : element("span", { class: "small" }, " optional")),
      element("td", {}, typeOf(spec, property), element("div", { class: "small" }, limits(inner))),
      element("td", {}, ...prose(property.description || inner.description))));
    const items = [].concat(inner.type || []).includes("array") ? resolve(spec, inner.items) : null;
    if (items && items.properties) fieldRows(spec, items, `${path}[].`, rows);
    else if (inner.properties) fieldRows(spec, inner, `${path}.`, rows);
  }
  return rows;
}

function table(rows) {
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : "";
}

// A text as it is: that of a media type which is not JSON.
function json(value) {
  return element("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

function content(spec, body) {
  return Object.entries(body.content || {}).flatMap(([mediaType, media]) => {
    // A text that holds documents is shown as what they hold.
    const items = (resolve(spec, media.schema).contentSchema || {}).items;
    const schema = resolve(spec, items || media.schema);
    const example = media.example !== undefined ? media.example : schema.example;
    const examples = Object.entries(media.examples || {}).map(([name, reference]) => {
      const one = resolve(spec, reference);
      return element("details", {}, element("summary", {}, element("code", {}, name)), ...prose(one.description), json(one.value));
    });
    const fields = media.examples ? [] : fieldRows(spec, schema, "", []);
    return [element("p", { class: "small" }, mediaType, items ? ": on each line" : ""), table(fields), example === undefined ? "" : json(example), ...examples];
  });
}

function parameters(spec, operation) {
  const rows = (operation.parameters || []).map((reference) => {
    const parameter = resolve(spec, reference);
    return element("tr", {},
      element("td", {}, element("code", {}, parameter.name), parameter.required ? "" : element("span", { class: "small" }, " optional")),
      element("td", {}, parameter.in, element("div", { class: "small" }, limits(parameter.schema || {}))),
      element("td", {}, ...prose(parameter.description), parameter.example ? element("code", {}, parameter.example) : ""));
  });
  return rows.length ? [element("h4", {}, "Parameters"), table(rows)] : [];
}

function responses(spec, operation) {
  return Object.entries(operation.responses || {}).map(([status, reference]) => {
    const response = resolve(spec, reference);
    const headers = Object.entries(response.headers || {}).map(([name, header]) =>
      element("tr", {}, element("td", {}, element("code", {}, name)), element("td", {}, ...prose(resolve(spec, header).description))));
    return element("details", {},
      element("summary", {}, element("strong", {}, status), ` ${response.description || ""}`),
      table(headers), ...content(spec, response));
  });
}

function operationSection(spec, path, method, operation) {
  const body = resolve(spec, operation.requestBody);
  return element("section", { id: operation.operationId },
    element("h3", {}, element("span", { class: `method ${method}` }, method.toUpperCase()), path),
    ...prose(operation.summary), ...prose(operation.description),
    ...parameters(spec, operation),
    ...(operation.requestBody ? [element("h4", {}, body.required ? "Body" : "Body (optional)"), ...content(spec, body)] : []),
    element("h4", {}, "Responses"), ...responses(spec, operation));
}

function render(spec) {
  const main = document.getElementById("document");
  const contents = document.getElementById("contents");
  document.title = spec.info.title;
  main.replaceChildren(
    element("h1", {}, spec.info.title, " ", element("span", { class: "small" }, spec.info.version)),
    ...prose(spec.info.description),
    element("p", {}, element("a", { href: "/openapi.json" }, "/openapi.json"), ` (OpenAPI ${spec.openapi})`));
  contents.replaceChildren(element("strong", {}, spec.info.title));
  for (const tag of spec.tags) {
    main.append(element("h2", {}, tag.name), ...prose(tag.description));
    contents.append(element("h2", {}, tag.name));
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const method of METHODS.filter((method) => item[method] && (item[method].tags || []).includes(tag.name))) {
        main.append(operationSection(spec, path, method, item[method]));
        contents.append(element("a", { href: `#${item[method].operationId}` },
          element("span", { class: `method ${method}` }, method.toUpperCase()), item[method].summary || path));
      }
    }
  }
}

fetch("/openapi.json")
  .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
  .then(render)
  .catch((error) => document.getElementById("document").replaceChildren(element("p", {}, `The document could not be rendered: ${error.message}`)));
