#!/bin/bash
# deb.sh [OUT]   Builds OUT/vedetta_VERSION_ARCH.deb (OUT is bin) with the
# program, the units of hub and agent, and an example configuration. Neither
# unit is started by the installation: both need a configuration first.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-bin}
arch=$(go env GOARCH)
# 0~ sorts before any release; the date makes a later build a later version.
version=$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' ||:)
version=${version:-0~git$(git log -1 --format=%cd.%h --date=format:%Y%m%d%H%M%S 2>/dev/null || echo unknown)}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
install -d "$root"/{DEBIAN,usr/bin,usr/lib/systemd/system,etc/vedetta,usr/share/doc/vedetta}
CGO_ENABLED=0 go build -trimpath -o "$root/usr/bin/vedetta" ./cmd/vedetta
for unit in vedetta vedetta-agent; do
  # The comment at the top is about installing by hand.
  sed -e '/^# Install:/,/^\[Unit\]/{/^\[Unit\]/!d}' -e 's|/usr/local/bin/|/usr/bin/|' "packaging/$unit.service" > "$root/usr/lib/systemd/system/$unit.service"
done
install -m 640 config.example.yaml "$root/etc/vedetta/vedetta.yaml"
install -m 644 README.md CHANGELOG.md packaging/prometheus.rules packaging/sudo.conf "$root/usr/share/doc/vedetta/"
cp -r docs "$root/usr/share/doc/vedetta/docs"
for script in postinst prerm postrm; do
  install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/vedetta/vedetta.yaml > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" <<CONTROL
Package: vedetta
Version: $version
Architecture: $arch
Maintainer: The Vedetta developers <vedetta@localhost>
Section: mail
Priority: optional
Depends: passwd
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Description: watch on outbound mail
 Notices a hijacked mailbox or web script within a few messages, stops its
 sending at Postfix or Exim, and tells the people on duty. Runs by itself
 (vedetta.service), or as the agent of a hub (vedetta-agent.service).
CONTROL
mkdir -p "$out"
dpkg-deb --root-owner-group --build "$root" "$out/vedetta_${version}_$arch.deb"
