#!/bin/bash
# install.sh   Puts what the tests need and Go does not bring on this machine:
# on Debian, as root, with apt: Postfix and Dovecot (none is started, none is
# configured), MariaDB's and PostgreSQL's servers (MariaDB's sets up its data
# with a program of the client's package; none is started; PostgreSQL's
# package makes its usual empty cluster), pflogsumm to compare with, a C
# compiler for the race detector, Unbound and rbldnsd for block lists, and sudo.
# Exim, which cannot be installed beside Postfix, is unpacked with the libraries
# that it lacks into vedetta-tests/exim of the user's cache directory.
# Says nothing and asks nobody where all of it is there already.
#
# Where it installs nothing, it says so and which tests that leaves out, and
# succeeds. It fails only if apt does.
set -euo pipefail

packages=(postfix dovecot-core dovecot-imapd dovecot-lmtpd dovecot-mysql dovecot-pgsql
  mariadb-server-core mariadb-client-core postgresql pflogsumm gcc libc6-dev unbound rbldnsd sudo)

# apt would remove another server of MySQL's family to install MariaDB's.
if dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' 2>/dev/null |
  grep '^installed .*virtual-mysql-server-core' | grep -qv '^installed mariadb-server-core '; then
  packages=("${packages[@]/mariadb-server-core/}")
  packages=("${packages[@]/mariadb-client-core/}")
fi

left_out() {
  echo "left out: the tests that start Postfix, Exim and Dovecot (they use test/bed). $1"
  exit 0
}

[ "$(uname -s)" = Linux ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null ||
  left_out "This is not Debian."
[ "$(id -u)" = 0 ] || left_out "Only root can start them; run this as root."

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for p in ${packages[*]}; do installed "$p" || missing+=("$p"); done

# unpack_exim leaves out its tests, and fails nobody, where it cannot.
unpack_exim() {
  local root=${XDG_CACHE_HOME:-$HOME/.cache}/vedetta-tests/exim
  [ ! -e /usr/sbin/exim4 ] && ! runs "$root" >/dev/null || return 0
  echo "unpacking Exim into $root (nothing is installed or started)"
  local tmp libraries
  tmp=$(mktemp -d)
  chmod 777 "$tmp" # apt downloads as a user of its own
  mkdir "$tmp/root"
  if libraries=$(apt-get -s install --no-install-recommends exim4-daemon-heavy 2>"$tmp/log" | awk '$1 == "Inst" && $2 ~ /^lib/ { print $2 }') &&
    (cd "$tmp" && apt-get download -qq exim4-daemon-heavy exim4-base exim4-config $libraries) >>"$tmp/log" 2>&1 &&
    for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root" || exit; done >>"$tmp/log" 2>&1 &&
    runs "$tmp/root" >>"$tmp/log" 2>&1; then
    mkdir -p "$(dirname "$root")" && rm -rf "$root" && cp -a "$tmp/root" "$root.new" && chmod 755 "$root.new" && mv "$root.new" "$root"
  else
    echo "left out: the tests that start Exim. It could not be unpacked: $(tail -n 1 "$tmp/log")"
  fi
  rm -rf "$tmp"
}

# runs says whether all libraries of the unpacked Exim are there.
runs() {
  [ -e "$1/usr/sbin/exim4" ] || return 1
  local lacking
  lacking=$(LD_LIBRARY_PATH=$(find "$1/usr/lib" -name 'lib*.so.*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:) ldd "$1/usr/sbin/exim4" | grep 'not found') || return 0
  echo "not found: $lacking"
  return 1
}

if [ ${#missing[@]} = 0 ]; then
  unpack_exim
  exit 0
fi

# A mail server that somebody uses: installing Postfix would replace another
# one, and installing Dovecot beside it could change what it serves.
in_use() {
  if grep -qsE '^[[:space:]]*[^#[:space:]]' /etc/postfix/main.cf; then echo "/etc/postfix/main.cf"; return; fi
  local p
  for p in $(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' |
    sed -n 's/^installed \([^ ]*\) .*mail-transport-agent.*/\1/p'); do
    [ "$p" = postfix ] || { echo "the package $p"; return; }
  done
  # Port 25 is 0019, state 0A is LISTEN.
  if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$2 ~ /:0019$/ && $4 == "0A" { found = 1 } END { exit !found }'; then
    echo "a server that listens on port 25"
  fi
}
found=$(in_use)
[ -z "$found" ] ||
  left_out "A mail server is already set up here ($found); to leave it as it is, nothing is installed (missing: ${missing[*]})."

echo "installing ${missing[*]} (nothing is started)"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=no
tidy() {
  rm -f "$log"
  [ "$made_policy" = no ] || rm -f "$policy"
}
trap tidy EXIT
if [ ! -e "$policy" ]; then # keeps maintainer scripts from starting anything
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
if ! {
  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections &&
    apt-get update -qq &&
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
} >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install.sh: apt could not install ${missing[*]}; 'make unit' runs the tests without them" >&2
  exit 1
fi
unpack_exim
