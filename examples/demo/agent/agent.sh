#!/bin/sh
# The demo's agent: an ordinary program with ordinary tools. It knows nothing of Exeat, and has no
# secret: where an SDK insists on a key, it gets a word that is worth nothing.
#
#     agent.sh PYTHON      (in an empty folder, under `exeat run`)
set -u
here=$(dirname "$0")
python=$1
api=https://api.demo.test:8443

say() { printf '\n%s\n' "$*"; }
show() { sed 's/^/    /'; }

attempt() {
    printf '\n  %s\n' "$1"
    shift
    "$@" 2>&1 | tail -n 1 | show
}

push() {
    cd tool && git commit --quiet --allow-empty -m "from the agent" \
        && git push --quiet origin HEAD:main
}

delete() {
    curl -sS --max-time 20 -X DELETE -o /dev/null -w 'HTTP %{http_code}' "$api/reports/today"
    echo
}

say "curl reads a report (the API knows only those who sign in)"
curl -sS --max-time 20 "$api/reports/today" | show
echo

say "git clones the source"
git clone --quiet https://git.demo.test:8443/git/acme/tool.git tool &&
    git -C tool log --oneline | show

say "the OpenAI SDK asks a model, and the answer streams"
"$python" "$here/model.py" gpt-5-mini | show

say "the MCP SDK lists the tools, and searches the tickets"
"$python" "$here/tools.py" search_tickets | show

say "node's fetch writes a comment on ticket 17"
node "$here/comment.mjs" 17 | show

say "What the policy does not say is refused, and each tool hears it in its own terms:"
attempt "git push" push
attempt "curl -X DELETE" delete
attempt "node's fetch, on a ticket that is not its own" node "$here/comment.mjs" 99
attempt "the OpenAI SDK, another model" "$python" "$here/model.py" the-expensive-one
attempt "the MCP SDK, another tool" "$python" "$here/tools.py" delete_tickets

say "Now a prompt injection has turned the agent, and it looks for a way out:"
exec "$python" "$here/escape.py"
