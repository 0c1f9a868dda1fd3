#!/bin/sh
# Prints a bearer token, good for an hour: token.sh customer c-42. Roles: customer, service, operator, auditor.
set -eu
role=${1:?which role: customer, service, operator or auditor}
subject=${2:-$role}
case $subject in
*[!A-Za-z0-9._-]*) echo "the subject may hold letters, digits, dots, hyphens and underscores" >&2; exit 2 ;;
esac
cd "$(dirname "$0")"
encoded() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
issued=$(date +%s)
signed=$(mktemp)
trap 'rm -f "$signed"' EXIT
printf '%s.%s' "$(printf '{"alg":"EdDSA","typ":"JWT","kid":"compose"}' | encoded)" "$(printf \
  '{"iss":"contrail-compose","aud":"contrail","sub":"%s","role":"%s","iat":%s,"exp":%s}' \
  "$subject" "$role" "$issued" "$((issued + 3600))" | encoded)" > "$signed"
printf '%s.%s\n' "$(cat "$signed")" "$(openssl pkeyutl -sign -inkey secrets/callers-key.pem -rawin -in "$signed" | encoded)"
