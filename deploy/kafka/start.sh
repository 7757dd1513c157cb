#!/usr/bin/env bash
# Starts the node; the first time it formats the data folder with one user (SCRAM-SHA-512) for each secret `kafka.<user>`.
# A user that comes later is added with `kafka-configs.sh`.
set -euo pipefail
umask 077

bin=${KAFKA_BIN:-/opt/kafka/bin}
secrets=${KAFKA_SECRETS:-/run/secrets}
properties=${KAFKA_PROPERTIES:-/opt/sluicegate/server.properties}
work=${KAFKA_WORK:-/tmp}
cluster=${CLUSTER_ID:?name the cluster}

password_of() {
  local text
  text=$(tr -d '\r\n' <"$1")
  if [[ ! $text =~ ^[A-Za-z0-9._-]{16,200}$ ]]; then
    echo "the secret $1 must be 16 to 200 letters, digits, '.', '_' or '-'" >&2
    exit 1
  fi
  printf %s "$text"
}

admin=$(password_of "$secrets/kafka.admin")
module=org.apache.kafka.common.security
login="required username=\"admin\" password=\"$admin\""
config=$work/server.properties
{
  cat "$properties"
  echo "listener.name.client.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule $login;"
  echo "listener.name.outside.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule $login;"
  echo "listener.name.controller.plain.sasl.jaas.config=$module.plain.PlainLoginModule $login user_admin=\"$admin\";"
} >"$config"
{
  echo "security.protocol=SASL_PLAINTEXT"
  echo "sasl.mechanism=SCRAM-SHA-512"
  echo "sasl.jaas.config=$module.scram.ScramLoginModule $login;"
} >"$work/admin.properties"

data=$(sed -n 's/^log\.dirs=//p' "$properties")
if [[ ! -e $data/meta.properties ]]; then
  users=()
  for file in "$secrets"/kafka.*; do
    password=$(password_of "$file")
    users+=(--add-scram "SCRAM-SHA-512=[name=${file##*/kafka.},password=$password]")
  done
  # It prints every credential that it writes: not into a log.
  "$bin/kafka-storage.sh" format --config "$config" --cluster-id "$cluster" "${users[@]}" >/dev/null
fi
exec "$bin/kafka-server-start.sh" "$config"
