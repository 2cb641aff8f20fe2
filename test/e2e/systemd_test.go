//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bootCopy installs the package into a copy of this machine's file system and boots it: a
// systemd of its own, in namespaces of its own, with the units of the package and those of
// the directory that $2 names, and nothing else.
const bootCopy = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount --bind "$2" mnt
mount -t proc proc proc
rm -rf usr/lib/systemd/system/*.wants etc/systemd/system/*.wants usr/lib/systemd/system-generators
chroot . dpkg -i /mnt/vedetta.deb
cp mnt/*.service mnt/*.target etc/systemd/system/
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for d in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "ptmx 5 2"; do
  set -- $d
  mknod -m 666 dev/$1 c $2 $3
done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
ln -s /proc/self/fd dev/fd
mount -t sysfs -o ro sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs tmpfs sys/fs/cgroup
  mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
  mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
fi
mkdir old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=lxc PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /usr/bin/systemd --system --unit=probe.target --log-target=null --show-status=0
`

const probeTarget = `[Unit]
Requires=basic.target probe.service
`

// probeUnit runs a script, of which all that it says is kept, and ends the copy.
const probeUnit = `[Service]
Type=oneshot
StandardOutput=append:/mnt/said
StandardError=inherit
ExecStart=/bin/sh /mnt/probe
ExecStopPost=/bin/systemctl exit
`

const probeConfig = `mode: enforce
hostname: mx1.hosting.test
logs:
  - path: /var/log/mail.log
gate:
  listen: ["unix:/run/vedetta/policy"]
  exim: ["unix:/run/vedetta/exim"]
queue:
  postfix: /var/spool/postfix
postfix:
  sasl_access: /var/lib/vedetta/postfix/sasl_access
  submit_users: /var/lib/vedetta/postfix/submit_users
  postsuper: [sudo, -n, /usr/sbin/postsuper]
exim:
  away_file: /var/lib/vedetta/exim/away
`

// probeScript does what the documents say to do.
const probeScript = `
echo "mx1" > /etc/hostname
touch /var/log/mail.log
install -m 640 -g vedetta /mnt/vedetta.yaml /etc/vedetta/vedetta.yaml
install -d -o vedetta -g vedetta -m 0755 /var/lib/vedetta/postfix /var/lib/vedetta/exim
mkdir -p /etc/systemd/system/vedetta.service.d
printf '[Service]\nStandardError=append:/mnt/journal\n' > /etc/systemd/system/vedetta.service.d/journal.conf
start() {
  : > /mnt/journal
  systemctl daemon-reload
  systemctl restart vedetta
  for i in $(seq 100); do grep -q msg=watching /mnt/journal && break; sleep .1; done
  echo "vedetta is $(systemctl is-active vedetta)"
}
start
vedetta block user:games
for i in $(seq 50); do
  runuser -u nobody -- postmap -q games hash:/var/lib/vedetta/postfix/submit_users > /tmp/games && break
  sleep .1
done
echo "sendmail reads: $(cat /tmp/games)"
runuser -u nobody -- test -r /var/lib/vedetta/exim/away && echo "exim reads its file"
runuser -u nobody -- test -w /run/vedetta/exim && echo "exim reaches the gate"
runuser -u nobody -- cat /var/lib/vedetta/vedetta.db /var/lib/vedetta/api-token /etc/vedetta/vedetta.yaml 2>&1 | grep -c 'Permission denied' | sed 's/$/ are denied/'
if command -v sudo > /dev/null; then
  echo 'vedetta ALL=(root) NOPASSWD: /usr/bin/touch /var/spool/postfix/try' > /etc/sudoers.d/vedetta
  cp /usr/share/doc/vedetta/sudo.conf /etc/systemd/system/vedetta.service.d/
  printf '[Service]\nExecStartPost=/usr/bin/sudo -n /usr/bin/touch /var/spool/postfix/try\n' > /etc/systemd/system/vedetta.service.d/try.conf
  start
  echo "$(stat -c %U /var/spool/postfix/try) wrote into the queue"
fi
`

// runUnits runs the package's service under a systemd of its own: its restrictions leave
// the mail servers what these have to read, and Vedetta what it needs.
func runUnits(t *testing.T, deb string) {
	if out, err := os.ReadFile("/proc/1/comm"); err != nil || strings.TrimSpace(string(out)) == "systemd" {
		t.Skip("a systemd runs here, and is left alone")
	}
	for _, tool := range []string{"systemd", "unshare", "pivot_root", "postmap", "runuser"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	share := t.TempDir()
	if err := os.Link(deb, filepath.Join(share, "vedetta.deb")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"probe.target": probeTarget, "probe.service": probeUnit, "probe": probeScript, "vedetta.yaml": probeConfig,
	} {
		if err := os.WriteFile(filepath.Join(share, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	boot := exec.Command("timeout", "--kill-after=5", "90", "unshare", "-pfmuin", "--kill-child", "sh", "-c", bootCopy, "sh", t.TempDir(), share)
	out, err := boot.CombinedOutput()
	for _, left := range []string{"systemd", "unified", "."} {
		os.Remove(filepath.Join("/sys/fs/cgroup", left, "init.scope")) // empty, of the systemd that is gone
	}
	said, unsaid := os.ReadFile(filepath.Join(share, "said"))
	if unsaid != nil {
		t.Skipf("needs the right to boot a systemd in namespaces of its own: %v %s", err, out)
	}
	journal, _ := os.ReadFile(filepath.Join(share, "journal"))
	wants := []string{"vedetta is active\n", "sendmail reads: blocked", "exim reads its file", "exim reaches the gate", "3 are denied"}
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Log("left out: packaging/sudo.conf, as sudo is not installed")
	} else {
		wants = append(wants, "root wrote into the queue")
	}
	for _, want := range wants {
		if !strings.Contains(string(said), want) {
			t.Errorf("not said: %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%v\n%s\n%s\n%s", err, out, said, journal)
	}
}

// TestAgentsUnitIsTheServices holds what is said of one unit for both.
func TestAgentsUnitIsTheServices(t *testing.T) {
	service, err := os.ReadFile("../../packaging/vedetta.service")
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.ReadFile("../../packaging/vedetta-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	same := strings.NewReplacer("Vedetta agent, the watch on outbound mail of one server of a fleet", "Vedetta, the watch on outbound mail",
		"vedetta agent -c", "vedetta serve -c", "vedetta-agent.service", "vedetta.service").Replace(string(agent))
	if diff := cmp.Diff(same, string(service)); diff != "" {
		t.Errorf("the agent's (-), the service's (+):\n%s", diff)
	}
}
