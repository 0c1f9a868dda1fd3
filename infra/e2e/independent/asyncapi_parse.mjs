// The parser of the AsyncAPI project checks a document against its specification, and ajv, the usual validator of JSON Schema in
// JavaScript, checks messages against what the document says of them.
//
//     node asyncapi_parse.mjs FILE [TRAIL]        (with @asyncapi/parser, and the ajv that comes with it, in ./node_modules)
//
// The messages are the document's own examples, and the lines of TRAIL, one stored message each: an audit export in JSONL. Prints a line
// for each error and warning and for each message that is not as described, and then what there is; ends with 1 if it has complained.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
const { Parser } = require("@asyncapi/parser");
const Ajv = require("ajv").default;
const addFormats = require("ajv-formats").default;

const WARNING = 1;
const [file, trail] = process.argv.slice(2);
const complaints = [];

const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
// Beyond warnings there are hints, such as that there is a newer version of AsyncAPI.
for (const { code, path, message } of diagnostics.filter(({ severity }) => severity <= WARNING)) {
  complaints.push(`${code} ${path.join(".")}: ${message}`);
}

let [examples, lines] = [0, 0];
if (document) {
  const ajv = new Ajv({ strict: false });
  addFormats(ajv);
  // Those that are registered with OpenAPI say which type of integer holds the number; JavaScript has only one.
  for (const format of ["int64", "uint32", "uint64"]) ajv.addFormat(format, true);
  const validators = new Map();
  const check = (what, name, payload) => {
    const validate = validators.get(name);
    if (!validate) complaints.push(`${what}: there is no message ${name}`);
    else if (!validate(payload)) complaints.push(`${what}: ${ajv.errorsText(validate.errors)}`);
  };
  for (const message of document.allMessages()) {
    validators.set(message.name(), ajv.compile(message.payload().json()));
    for (const example of message.examples()) {
      examples += 1;
      check(`example of ${message.name()}`, message.name(), example.payload());
    }
  }
  for (const line of trail ? readFileSync(trail, "utf8").split("\n").filter(Boolean) : []) {
    lines += 1;
    const stored = JSON.parse(line);
    check(`line ${lines}`, stored.type, stored);
  }
  const [channels, operations, messages] = [document.allChannels(), document.allOperations(), document.allMessages()];
  console.log(`AsyncAPI ${document.version()}: ${channels.length} channels, ${operations.length} operations, ${messages.length} messages`);
  console.log(`${examples} examples and ${lines} lines checked`);
}
for (const complaint of complaints) console.log(complaint);
process.exit(document && complaints.length === 0 ? 0 : 1);
