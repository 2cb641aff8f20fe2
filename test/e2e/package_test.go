//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inCopy runs a script in a copy of this machine's file system that goes away
// with it: an overlay in a mount namespace of its own.
const inCopy = `set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
cp "$2" "$1/root/tmp/vedetta.deb"
exec chroot "$1/root" /bin/sh -ec "$3"
`

// builtPackage builds the package.
func builtPackage(t *testing.T) (deb string) {
	t.Helper()
	for _, tool := range []string{"dpkg-deb", "unshare", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if out, err := exec.Command("unshare", "-m", "sh", "-ec", `mount -t tmpfs tmpfs "$1"; mkdir "$1/u" "$1/w" "$1/r"; mount -t overlay o -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" "$1/r"`, "sh", t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount an overlay: %v %s", err, out)
	}
	dir := t.TempDir()
	if out, err := exec.Command("../../packaging/deb.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "vedetta_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%q, %v", debs, err)
	}
	return debs[0]
}

// TestDebianPackage tries the package in copies of this machine.
func TestDebianPackage(t *testing.T) {
	deb := builtPackage(t)
	t.Run("installed and purged", func(t *testing.T) { installAndPurge(t, deb) })
	t.Run("its units", func(t *testing.T) { runUnits(t, deb) })
}

func installAndPurge(t *testing.T, deb string) {
	script := `
dpkg -i /tmp/vedetta.deb
id vedetta
stat -c '%a %U %G %n' /etc/vedetta /etc/vedetta/vedetta.yaml /var/lib/vedetta
vedetta config check
vedetta version
grep -h ExecStart /usr/lib/systemd/system/vedetta*.service
dpkg -i /tmp/vedetta.deb
dpkg --purge vedetta
test ! -e /usr/bin/vedetta && test ! -e /var/lib/vedetta && test ! -e /etc/vedetta/vedetta.yaml && echo gone
`
	cmd := exec.Command("unshare", "-m", "sh", "-c", inCopy, "sh", t.TempDir(), deb, script)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"(adm)", "750 root vedetta /etc/vedetta\n", "640 root vedetta /etc/vedetta/vedetta.yaml", "751 vedetta vedetta /var/lib/vedetta",
		"/etc/vedetta/vedetta.yaml is right", "ExecStart=/usr/bin/vedetta serve -c", "ExecStart=/usr/bin/vedetta agent -c", "gone",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("not said: %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
