#!/usr/bin/env bash
# servers.sh FOLDER    lays out, one folder each in FOLDER, the files of images of
# the servers that the demo overlay brings along, from what is installed here:
# postgres (Debian's packages), prometheus (Debian's), and jaeger where
# SIMPUL_TEST_JAEGER names its binary. For a Kubernetes that cannot pull. Prints the
# names made.
set -euo pipefail
to=$1

# with_libraries ROOT FILE...: copies files under their own paths, and the
# libraries that they need.
with_libraries() {
  local root=$1 file library
  shift
  for file in "$@"; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
    { ldd "$file" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
      [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
    done
  done
}

for bin in /usr/lib/postgresql/*/bin; do
  [ -x "$bin/postgres" ] || continue
  version=$(basename "$(dirname "$bin")") root=$to/postgres
  rm -rf "$root"
  with_libraries "$root" "$bin/postgres" "$bin/initdb" /bin/bash /bin/sed
  mkdir -p "$root"/{usr/share,usr/lib/postgresql/$version,etc,tmp}
  cp -r "/usr/lib/postgresql/$version/lib" "$root/usr/lib/postgresql/$version/"
  rm -rf "$root/usr/lib/postgresql/$version/lib/bitcode"
  mkdir -p "$root/usr/share/postgresql" && cp -r "/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
  cp -rL /usr/share/zoneinfo "$root/usr/share/"
  ln -sf bash "$root/bin/sh"
  echo 'postgres:x:999:999::/tmp:/bin/bash' >"$root/etc/passwd"
  echo 'postgres:x:999:' >"$root/etc/group"
  echo postgres
done | tail -n 1

if prometheus=$(command -v prometheus); then
  rm -rf "$to/prometheus"
  with_libraries "$to/prometheus" "$prometheus"
  mkdir -p "$to/prometheus/bin" && mv "$to/prometheus$prometheus" "$to/prometheus/bin/prometheus"
  mkdir -p "$to/prometheus/etc"
  echo 'nobody:x:65534:65534::/:/bin/false' >"$to/prometheus/etc/passwd"
  echo prometheus
fi

if [ -n "${SIMPUL_TEST_JAEGER:-}" ] && [ -x "$SIMPUL_TEST_JAEGER" ]; then
  rm -rf "$to/jaeger"
  mkdir -p "$to/jaeger/bin" "$to/jaeger/tmp"
  cp "$SIMPUL_TEST_JAEGER" "$to/jaeger/bin/jaeger"
  { ldd "$SIMPUL_TEST_JAEGER" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$to/jaeger$(dirname "$library")"; cp -L "$library" "$to/jaeger$library"
  done
  echo jaeger
fi
