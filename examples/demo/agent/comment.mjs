// Writes a comment with node's own fetch.

const url = `https://api.demo.test:8443/comments/${process.argv[2]}`;
const answer = await fetch(url, {
  method: "POST",
  body: JSON.stringify({ text: "on it" }),
  signal: AbortSignal.timeout(20000),
});
const body = await answer.json();
console.log("HTTP", answer.status, body.error ? body.error.code : JSON.stringify(body));
