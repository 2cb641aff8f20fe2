#!/bin/bash
# vulnerabilities.sh MODULE@VERSION   Looks the dependencies up in Go's database
# of vulnerabilities. Fails if one of them concerns us, or if the look-up itself
# is broken; where the database cannot be reached it says so and succeeds.
# GOVULNDB is the address of another copy of the database.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! GOBIN=$dir go install "$1" >"$dir/log" 2>&1; then
  cat "$dir/log" >&2
  exit 1
fi
status=0
"$dir/govulncheck" ${GOVULNDB:+-db "$GOVULNDB"} ./... >"$dir/log" 2>&1 || status=$?
case $status in
  0) echo "no known vulnerability concerns us" ;;
  3) # the exit status that means found
    cat "$dir/log"
    exit 1 ;;
  *)
    if grep -qE 'vuln\.go\.dev|fetching vulnerabilities' "$dir/log"; then
      echo "left out: no vulnerability data ($(tail -n 1 "$dir/log"))"
    else
      cat "$dir/log" >&2
      exit 1
    fi ;;
esac
