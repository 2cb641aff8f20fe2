#!/bin/bash
# fuzz.sh TIME   Runs every fuzz target of the module for TIME (30s, 5m), one
# after the other. A failing input is kept below the package's testdata/fuzz.
set -euo pipefail

listed=$(go test -list '^Fuzz' ./...) || {
  echo "$listed" >&2
  exit 1
}
targets=$(awk '/^Fuzz/ { names[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' <<<"$listed")
[ -n "$targets" ] || { echo "fuzz.sh: found no target" >&2; exit 1; }
while read -r package name; do
  echo "$package $name"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$1" "$package"
done <<<"$targets"
