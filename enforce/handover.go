package enforce

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// HandoverCommand gives the new password to a program of the operator's, such
// as one that prints letters or opens a ticket, on standard input. Arguments,
// names and output are treated as [CommandPasswords] does it.
type HandoverCommand struct {
	Argv    []string
	Input   string        // as in CommandPasswords
	Timeout time.Duration // 0 means ten seconds
}

// Name names the program in outcomes.
func (h HandoverCommand) Name() string { return CommandPasswords{Argv: h.Argv}.Name() }

// Check reports what is wrong with the settings.
func (h HandoverCommand) Check() error { return h.command().Check() }

// Give runs the program.
func (h HandoverCommand) Give(ctx context.Context, o Reset, p Password) error {
	return h.command().Change(ctx, o.Account, p.Reveal())
}

// Plan is the command line.
func (h HandoverCommand) Plan(o Reset) []string {
	return []string{"hand over: " + h.command().Plan(o.Account)[0]}
}

func (h HandoverCommand) command() CommandPasswords {
	return CommandPasswords{Argv: h.Argv, Input: h.Input, Timeout: h.Timeout}
}

// HandoverWebhook posts the new password to a service of the operator's, as
// [WebhookPasswords] does it, with type password.handover and the reset's id
// beside account and password.
type HandoverWebhook struct {
	URL     string // https; http only to this machine
	Secret  string
	Roots   *x509.CertPool // whom to trust; nil: the system's
	Timeout time.Duration  // of each try; 0 means ten seconds
}

// Name names the service in outcomes.
func (h HandoverWebhook) Name() string { return "webhook " + h.post("", nil).host() }

// Check reports what is wrong with the settings.
func (h HandoverWebhook) Check() error { return h.post("", nil).check() }

// Give posts the password.
func (h HandoverWebhook) Give(ctx context.Context, o Reset, p Password) error {
	data := map[string]string{"id": o.ID, "account": o.Account, "password": p.Reveal()}
	if err := h.post(secretID(p.Reveal(), "handover "+o.ID), data).do(ctx, "password.handover"); err != nil {
		return fmt.Errorf("enforce: handover to %s: %w", h.Name(), err)
	}
	return nil
}

// Plan says where what is posted.
func (h HandoverWebhook) Plan(o Reset) []string {
	return []string{fmt.Sprintf("hand over: POST password.handover of %s to %s", printable(o.Account), h.post("", nil).host())}
}

func (h HandoverWebhook) post(id string, data map[string]string) secretPost {
	return secretPost{url: h.URL, secret: h.Secret, roots: h.Roots, timeout: h.Timeout, id: id, data: data}
}

// HandoverFile writes each new password to a file of its own, mode 0600, in a
// directory that nobody else may write to. The owner of the directory reads
// the files and removes them. A reset that is done again replaces its file.
type HandoverFile struct{ Dir string }

// Name names the directory in outcomes.
func (h HandoverFile) Name() string { return "file in " + h.Dir }

// Check reports a directory that is missing or that others may write to.
func (h HandoverFile) Check() error {
	info, err := os.Stat(h.Dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", h.Dir)
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("%s can be written to by others: chmod 700", h.Dir)
	}
	return nil
}

// Give writes the file: the account and the password, a line each.
func (h HandoverFile) Give(_ context.Context, o Reset, p Password) error {
	if err := errors.Join(h.Check(), checkAccount(o.Account), checkPassword(p.Reveal())); err != nil {
		return fmt.Errorf("enforce: handover: %w", err)
	}
	path := h.path(o)
	fresh := path + ".new"
	text := "account: " + o.Account + "\npassword: " + p.Reveal() + "\n"
	err := writeFile(fresh, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		_ = os.Remove(fresh)
		return fmt.Errorf("enforce: handover: %w", err)
	}
	if err := syncFile(h.Dir); err != nil {
		return fmt.Errorf("enforce: handover: %w", err)
	}
	return nil
}

// Plan names the file.
func (h HandoverFile) Plan(o Reset) []string {
	return []string{"hand over: write " + printable(h.path(o)) + ", mode 0600"}
}

// path is made of the account where that is plain, and a sum of the ID.
func (h HandoverFile) path(o Reset) string {
	name := "account"
	if isPlainName(o.Account) && len(o.Account) < 128 && o.Account[0] != '.' {
		name = o.Account
	}
	sum := sha256.Sum256([]byte(o.ID + "\x00" + o.Account))
	return filepath.Join(h.Dir, name+"-"+hex.EncodeToString(sum[:8])+".txt")
}
