package store

import (
	"errors"
	"testing"
	"time"
)

// One rotation at a time, each written down with who began it; its end leaves the
// next key and nothing else.
func TestRotation(t *testing.T) {
	db, ctx, now := openAgents(t), t.Context(), agentsNow
	if _, err := db.SettingOnce(ctx, RecipientKey, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := db.BeginAgain(ctx, []byte("zeroth"), now, "root", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("again, before there was one: %v", err)
	}
	if err := db.BeginRotation(ctx, []byte("first"), now, "root", "yearly"); err != nil {
		t.Fatal(err)
	}
	if err := db.BeginRotation(ctx, []byte("second"), now, "eve", ""); !errors.Is(err, ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	if text, err := db.Setting(ctx, RecipientRotation); err != nil || string(text) != "first" {
		t.Errorf("%q, %v", text, err)
	}
	if err := db.BeginAgain(ctx, []byte("third"), now, "root", "it leaked"); err != nil {
		t.Fatal(err)
	}
	if text, err := db.Setting(ctx, RecipientRotation); err != nil || string(text) != "third" {
		t.Errorf("again: %q, %v", text, err)
	}
	if err := db.EndRotation(ctx, []byte("next"), now); err != nil {
		t.Fatal(err)
	}
	if text, err := db.Setting(ctx, RecipientKey); err != nil || string(text) != "next" {
		t.Errorf("the key is %q, %v", text, err)
	}
	if _, err := db.Setting(ctx, RecipientRotation); !errors.Is(err, ErrNotFound) {
		t.Errorf("the rotation is still there: %v", err)
	}
	if text, err := db.Setting(ctx, RecipientReplaced); err != nil || string(text) != now.Format(time.RFC3339Nano) {
		t.Errorf("it is replaced at %q, %v", text, err)
	}
	rows, err := db.Journal(ctx, JournalFilter{Subject: RecipientKey})
	if err != nil || len(rows) != 3 || rows[2].Who != "root" || rows[2].Action != "rotate" || rows[1].Action != "rotate again" || rows[1].Why != "it leaked" || rows[0].Who != ourselves || rows[0].Action != "replace" {
		t.Errorf("journal: %+v, %v", rows, err)
	}
}
