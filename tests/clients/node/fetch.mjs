// Node's own fetch: each URL in turn.
//
//     node fetch.mjs METHOD URL...
//
// Prints a JSON line for each answer.

const [method, ...urls] = process.argv.slice(2);
const headers = { authorization: "Bearer agents-own", "x-api-key": "agents-own-key" };

for (const url of urls) {
  const answer = await fetch(url, { method, headers, signal: AbortSignal.timeout(20000) });
  console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
}
