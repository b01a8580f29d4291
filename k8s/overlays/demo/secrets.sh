#!/bin/sh
# secrets.sh [SIMPUL]    makes what the demonstration keeps secret, in the folder
# secrets/ beside this file, with the program simpul: two authorities, the nodes'
# certificates, the database's password, and certificates of four clients (alice,
# bob, toko, and the operator olga). What is there already stays.
set -eu
simpul=${1:-simpul}
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets
[ -e clients/ca.pem ] || "$simpul" cert init --dir clients --name 'Simpul demo' >/dev/null
[ -e mesh/ca.pem ] || "$simpul" cert init --dir mesh --name 'Simpul demo mesh' >/dev/null
if [ ! -e tls.crt ]; then
  set -- --dns localhost --dns simpul
  for domain in simpul simpul.svc simpul.svc.cluster.local; do
    set -- "$@" --dns "simpul.$domain" --dns "*.simpul-nodes.$domain"
  done
  "$simpul" cert issue server --dir clients "$@" >/dev/null
  mv clients/server.pem tls.crt
  mv clients/server-key.pem tls.key
fi
if [ ! -e mesh.crt ]; then
  "$simpul" cert issue node --dir mesh --any-node mesh.simpul >/dev/null
  mv mesh/node.pem mesh.crt
  mv mesh/node-key.pem mesh.key
  cp mesh/ca.pem mesh-ca.crt
fi
for who in alice bob toko olga; do
  [ -e "clients/$who.pem" ] \
    || "$simpul" cert issue "$who" --dir clients --principal "user/$who@demo.simpul" >/dev/null
done
if [ ! -e password ]; then
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >password
  printf 'postgres://simpul:%s@postgres:5432/postgres?sslmode=disable' "$(cat password)" >store-url
fi
