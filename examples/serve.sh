# What the examples have in common: finds or builds the programs, starts a server on loopback that
# knows the example's names, and makes a folder for the trail. Read by `run`, not run by itself.
#
#     . ../serve.sh
#     serve NAME=ADDRESS:PORT...     which names lead to a plaintext server behind the TLS one
#     governed COMMAND...            the command under `exeat run`, with the example's policy

set -eu
here=$(pwd)
root=$(cd "$here/../.." && pwd)
address=127.77.0.2
port=8443

if [ -z "${EXEAT_PROGRAMS:-}" ]; then
    (cd "$root" && cargo build --quiet --package exeat --package exeat-tests --bins)
    EXEAT_PROGRAMS=${CARGO_TARGET_DIR:-$root/target}/debug
fi

work=$(mktemp -d)
trap 'exec 9>&-; rm -rf "$work"' EXIT
# The servers run until their standard input ends, and that is this pipe.
mkfifo "$work/alive"

serve() {
    fronts=
    for front; do fronts="$fronts --front $front"; done
    # shellcheck disable=SC2086 # one word a front
    "$EXEAT_PROGRAMS/exeat-test-upstream" --address "$address" --tls-port "$port" $fronts \
        --ca-out "$work/upstream-ca.pem" --log "$work/upstream.jsonl" \
        <"$work/alive" >"$work/listening" 9>&- &
    exec 9>"$work/alive"
    tries=0
    until [ -s "$work/listening" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "error: the example's server did not start on $address:$port" >&2
            exit 1
        fi
        sleep 0.1
    done
}

governed() {
    # A made-up secret, in a file that only the gate reads.
    printf 'example-secret\n' >"$work/secret"
    "$EXEAT_PROGRAMS/exeat" run --policy "$here/policy.yaml" --audit "$work/journal.jsonl" \
        --credential "example=$work/secret" --upstream-ca "$work/upstream-ca.pem" \
        --resolve "$name=$address" -- "$@"
}

trail() {
    echo
    echo "-- the trail"
    "$EXEAT_PROGRAMS/exeat" audit show "$work/journal.jsonl"
}
