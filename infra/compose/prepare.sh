#!/bin/sh
# Makes what the containers need and no repository holds: passwords in .env, keys in secrets/. What is there already stays as it is.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets

if [ ! -e .env ]; then
  # They begin with a letter, since nats-server takes a word of digits for a number.
  for name in NATS_PASSWORD_ADMIN NATS_PASSWORD_COMMAND_API NATS_PASSWORD_REACTORS NATS_PASSWORD_PROJECTORS \
    POSTGRES_PASSWORD POSTGRES_PASSWORD_PROJECTORS POSTGRES_PASSWORD_QUERY GRAFANA_PASSWORD; do
    printf '%s=p%s\n' "$name" "$(openssl rand -hex 24)"
  done > .env.new
  mv .env.new .env
fi

# The first signs the audit trail, the second the tokens of callers (token.sh).
for key in audit-key callers-key; do
  [ -e "secrets/$key.pem" ] || openssl genpkey -algorithm ed25519 -out "secrets/$key.pem"
done
public=$(openssl pkey -in secrets/callers-key.pem -pubout -outform DER | tail -c 32 | openssl base64 -A | tr '+/' '-_' | tr -d '=')
printf '{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"compose","x":"%s"}]}\n' "$public" > secrets/callers-jwks.json

# Two of them are mounted, and read by the images' user, who is nobody on this machine. Others here do not get into the folder.
chmod 644 secrets/audit-key.pem secrets/callers-jwks.json
