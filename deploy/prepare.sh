#!/usr/bin/env bash
# Makes what compose.yaml mounts and nobody else may have: the keys, and one password a user. Run once, where `sluicegate`
# is installed, as the user with the number 1000; what is there is kept. Afterwards take `offline/` off this machine.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets/keys offline

keys() { # folder, words: makes a key in the folder
  SLUICEGATE_HOME=$PWD/offline/home SLUICEGATE_KEYS_DIR=$PWD/$1 sluicegate keys new "${@:2}"
}
secret() {
  [[ -e secrets/$1 ]] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"secrets/$1"
}

for user in admin main.publisher main.enforcer main.freshness main.runner main.redactor main.delivery main.shadow main.sink helpdesk-app; do
  secret "kafka.$user"
done
for user in admin sink auditor; do
  secret "clickhouse.$user"
done
# The server gets the hash of its administrator's password, never the password.
hash=$(sha256sum <"secrets/clickhouse.admin" | cut -d ' ' -f 1)
sed "s/PASSWORD_SHA256/$hash/" clickhouse/admin.xml >secrets/clickhouse-admin.xml
chmod 644 secrets/clickhouse-admin.xml

for key in publisher freshness; do
  [[ -e secrets/keys/$key.pem ]] || keys secrets/keys "$key"
done
for stage in enforcer runner redactor shadow; do
  [[ -e secrets/keys/stage-$stage.pem ]] || keys secrets/keys stage "$stage"
done
if [[ ! -e secrets/keys/root.json ]]; then
  chmod 700 offline
  cp secrets/keys/{publisher,freshness}.pub offline/
  keys offline root
  cp offline/root.json secrets/keys/
fi
echo "made; now take the root's private key, $PWD/offline, off this machine"
