// The audits of the npm package graphql-http, which check a server against the GraphQL over HTTP specification.
//
//     node graphql_http_audits.mjs URL TOKEN        (with graphql-http and graphql in ./node_modules)
//
// Prints one line for each audit that does not pass, and how many there are; ends with 1 unless all pass.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
const { serverAudits } = require("graphql-http");
const [url, token] = process.argv.slice(2);
const fetchFn = (target, init = {}) => fetch(target, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });

let passed = 0;
const audits = serverAudits({ url, fetchFn });
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status === "ok") passed += 1;
  else console.log(`${result.status} ${audit.id} ${audit.name}: ${result.reason}`);
}
console.log(`${passed} of ${audits.length}`);
process.exit(passed === audits.length ? 0 : 1);
