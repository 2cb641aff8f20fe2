package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakes are the programs that install.sh calls, as scripts. What they were
// asked goes to the file calls; the packages are in the file installed.
var fakes = map[string]string{
	"id": `echo "${FAKE_UID:-0}"`,
	"dpkg-query": `case $* in
*Provides*) cat "$FAKE/provides" ;;
*) for name; do :; done; grep -qx "$name" "$FAKE/installed" && echo installed ;;
esac`,
	"apt-get": `echo "apt-get $*" >>"$FAKE/calls"
ls /usr/sbin/policy-rc.d >>"$FAKE/calls" 2>&1
case $* in "-s install "*) echo "Inst libspf2-2 (1.2)"; echo "Inst exim4-base (4.96)"; exit ;; esac
[ -z "${FAKE_OFFLINE:-}" ] || { echo "could not resolve deb.debian.org" >&2; exit 100; }
case $1 in download) touch exim4.deb ;; esac`,
	"dpkg":                   `mkdir -p "$3/usr/sbin"; touch "$3/usr/sbin/exim4"`,
	"ldd":                    `[ -z "${FAKE_LACKING:-}" ] || echo "libspf2.so.2 => not found"`,
	"debconf-set-selections": `cat >>"$FAKE/calls"`,
}

const all = "postfix\ndovecot-core\ndovecot-imapd\ndovecot-lmtpd\ndovecot-mysql\ndovecot-pgsql\nmariadb-server-core\nmariadb-client-core\npostgresql\npflogsumm\ngcc\nlibc6-dev\nunbound\nrbldnsd\n"

func TestInstall(t *testing.T) {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		t.Skip("install.sh works on Debian only")
	}
	if os.Geteuid() != 0 {
		t.Skip("install.sh works as root only")
	}
	if text, err := os.ReadFile("/etc/postfix/main.cf"); err == nil && len(text) > 0 {
		t.Skip("Postfix is configured here, and install.sh would see it")
	}
	const policy = "/usr/sbin/policy-rc.d"
	_, err := os.Stat(policy)
	hadPolicy := err == nil

	for _, tt := range []struct {
		name      string
		installed string
		provides  string // status, package and what it provides, a line each
		noExim    bool   // in the cache
		env       []string
		says      string // empty: nothing
		calls     string // of apt, empty: none
		fails     bool
	}{
		{name: "all there", installed: all},
		{name: "all there, offline", installed: all, env: []string{"FAKE_OFFLINE=1"}},
		{name: "not root", env: []string{"FAKE_UID=1000"}, says: "left out: the tests that start Postfix, Exim and Dovecot (they use test/bed). Only root can"},
		{name: "some missing", installed: strings.Replace(all, "pflogsumm\ngcc\n", "", 1), says: "installing pflogsumm gcc (nothing is started)",
			calls: "apt-get install -y -qq --no-install-recommends pflogsumm gcc\n"},
		{name: "Postfix gets no configuration", installed: strings.Replace(all, "postfix\n", "", 1), says: "installing postfix ",
			calls: "postfix postfix/main_mailer_type select No configuration\n"},
		{name: "nothing starts", says: "installing postfix dovecot-core ", calls: policy + "\n"},
		{name: "another mail server", provides: "installed mawk awk\ninstalled exim4-daemon-light exim4-localscanapi-4.1, mail-transport-agent\n",
			says: "A mail server is already set up here (the package exim4-daemon-light)"},
		{name: "one that was removed", provides: "config-files exim4-daemon-light mail-transport-agent\n", says: "installing postfix ", calls: "apt-get update -qq\n"},
		{name: "another MySQL", installed: strings.NewReplacer("mariadb-server-core\nmariadb-client-core\n", "", "gcc\n", "").Replace(all),
			provides: "installed mysql-server-core-8.0 virtual-mysql-server-core\n", says: "installing gcc (nothing is started)", calls: "--no-install-recommends gcc\n"},
		{name: "offline", env: []string{"FAKE_OFFLINE=1"}, says: "could not resolve deb.debian.org", calls: "apt-get update -qq\n", fails: true},
		{name: "no Exim", installed: all, noExim: true, says: "unpacking Exim into ",
			calls: "apt-get download -qq exim4-daemon-heavy exim4-base exim4-config libspf2-2\n"},
		{name: "no Exim, offline", installed: all, noExim: true, env: []string{"FAKE_OFFLINE=1"},
			says: "left out: the tests that start Exim. It could not be unpacked: could not resolve deb.debian.org", calls: "apt-get download"},
		{name: "an Exim that lacks a library", installed: all, env: []string{"FAKE_LACKING=1"},
			says: "It could not be unpacked: not found: libspf2.so.2", calls: "apt-get download"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, script := range fakes {
				write(t, filepath.Join(dir, name), "#!/bin/sh\n"+script+"\n", 0o755)
			}
			write(t, filepath.Join(dir, "installed"), tt.installed, 0o644)
			write(t, filepath.Join(dir, "provides"), tt.provides, 0o644)
			write(t, filepath.Join(dir, "calls"), "", 0o644)
			exim := filepath.Join(dir, "vedetta-tests/exim/usr/sbin")
			if !tt.noExim {
				if err := os.MkdirAll(exim, 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(exim, "exim4"), "", 0o755)
			}

			cmd := exec.Command("./install.sh")
			cmd.Env = append(append(os.Environ(), "FAKE="+dir, "XDG_CACHE_HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH")), tt.env...)
			said, err := cmd.CombinedOutput()
			if (err != nil) != tt.fails {
				t.Errorf("ended with %v: %s", err, said)
			}
			if tt.says == "" && len(said) > 0 || !strings.Contains(string(said), tt.says) {
				t.Errorf("said %q, want %q", said, tt.says)
			}
			if tt.noExim && !tt.fails && !slices.Contains(tt.env, "FAKE_OFFLINE=1") {
				if _, err := os.Stat(filepath.Join(exim, "exim4")); err != nil {
					t.Error(err)
				}
			}
			calls, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.calls == "" && len(calls) > 0 || !strings.Contains(string(calls), tt.calls) {
				t.Errorf("called %q, want %q", calls, tt.calls)
			}
			if _, err := os.Stat(policy); (err == nil) != hadPolicy {
				t.Errorf("%s is not as it was: %v", policy, err)
			}
		})
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
