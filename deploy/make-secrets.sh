#!/bin/sh
# Makes the secrets that compose.yaml reads, in deploy/secrets. What is there already stays as it is.
# The key for OpenAI is the one in OPENAI_API_KEY.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets # nobody else comes in; the files themselves are read by containers, whose users have other numbers
cd secrets

keep() { # NAME VALUE
    [ -e "$1" ] || printf '%s\n' "$2" >"$1"
    chmod 444 "$1"
}
random() { # BYTES
    od -An -N "$1" -t x1 /dev/urandom | tr -d ' \n'
}

if [ ! -e openai_api_key ] && [ -z "${OPENAI_API_KEY:-}" ]; then
    echo "Set OPENAI_API_KEY to your key for OpenAI, and run this again." >&2
    exit 1
fi
keep openai_api_key "${OPENAI_API_KEY:-}"
keep postgres_password "$(random 24)"
keep database_password "$(random 24)"
keep database_url "postgresql://textllm:$(cat database_password)@postgres/textllm"
keep s3_access_key "$(random 10)"
keep s3_secret_key "$(random 20)"
keep metrics_token "$(random 24)"
