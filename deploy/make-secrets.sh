#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, once: passwords of NATS, the key of tokens, a certificate for localhost.
#   deploy/make-secrets.sh [DIRECTORY]          default: deploy/.secrets
# What is there already stays as it is. Needs openssl.
set -eu
directory="${1:-$(dirname "$0")/.secrets}"
# Containers run as other users than you, so the files are readable; the directory is what keeps others on this
# machine out.
mkdir -p "$directory"
chmod 700 "$directory"
umask 022

# nats-server reads passwords as configuration: letters and digits, a letter first.
password() { printf 'p%s\n' "$(openssl rand -hex 24)"; }
once() { [ -s "$directory/$1" ] || { "$2" >"$directory/$1.new" && mv "$directory/$1.new" "$directory/$1"; }; }
jwt_secret() { openssl rand -hex 32; }
nats_env() {
    for login in gateway publisher service operator; do
        printf 'NATS_%s_PASSWORD=%s\n' "$(printf %s "$login" | tr '[:lower:]' '[:upper:]')" \
            "$(cat "$directory/nats_${login}_password")"
    done
    route="$(cat "$directory/nats_route_password")"
    printf 'NATS_ROUTE_PASSWORD=%s\n' "$route"
    printf 'NATS_ROUTES=[nats://route:%s@nats-1:6222,nats://route:%s@nats-2:6222,nats://route:%s@nats-3:6222]\n' \
        "$route" "$route" "$route"
}

for name in nats_gateway_password nats_publisher_password nats_service_password nats_operator_password \
    nats_route_password grafana_admin_password; do
    once "$name" password
done
once jwt_secret jwt_secret
once nats.env nats_env
if [ ! -s "$directory/tls.key" ] || [ ! -s "$directory/tls.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -keyout "$directory/tls.key" -out "$directory/tls.crt" \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
    chmod 644 "$directory/tls.key"
fi
# HAProxy wants certificate and key in one file.
cat "$directory/tls.crt" "$directory/tls.key" >"$directory/tls.pem"
echo "secrets are in $directory"
