package mailq

import "testing"

func TestCanonical(t *testing.T) {
	dir := &Directory{Realm: "Shop.test", Aliases: map[string]string{"al": "alice@shop.test", "sales@shop.test": "alice@shop.test",
		"a@x.test": "b@x.test", "b@x.test": "c@x.test", "o@x.test": "p@x.test", "p@x.test": "p@x.test"}}
	tests := []struct {
		dir   *Directory
		login string
		want  Account
	}{
		{dir, "Alice", "alice@shop.test"}, {dir, "ALICE@Shop.Test", "alice@shop.test"}, {dir, "al", "alice@shop.test"}, {dir, "Sales", "alice@shop.test"},
		{dir, "a@x.test", "c@x.test"}, {dir, "o@x.test", "p@x.test"}, {dir, "bob%blog.test", "bob@blog.test"}, {dir, "", ""},
		{dir, "x\x00\ny", "x??y@shop.test"}, {dir, "alice@shop.test\x00", "alice@shop.test?"}, {nil, "Alice", "alice"},
	}
	for _, tt := range tests {
		if got := tt.dir.Canonical(tt.login); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.login, got, tt.want)
		}
	}
}

func TestIsShared(t *testing.T) {
	dir := &Directory{Realm: "shop.test", Shared: []string{"relay@shop.test", "uid:1003", "web", "script:/var/www/"}}
	tests := []struct {
		account Account
		want    bool
	}{
		{"alice@shop.test", false}, {"relay@shop.test", true}, {"user:www-data", true}, {"user:shopuser", false}, {"user:Debian-exim", true}, {"uid:33", true}, {"uid:0", true},
		{"uid:1001", false}, {"uid:1003", true}, {"user:web", true}, {"client:127.0.0.1", true}, {"client:::1", true}, {"client:192.0.2.1", false}, {"root@shop.test", true},
		{"root@blog.test", false}, {"script:/var/www/a.php", true}, {"script:/home/a/www/a.php", false}, {"forward:box@shop.test", false}, {"", false},
	}
	for _, tt := range tests {
		if got := dir.IsShared(tt.account); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.account, got, tt.want)
		}
	}
	if !(*Directory)(nil).IsShared("user:nobody") {
		t.Error("a server without a directory does not know nobody")
	}
}

func TestOwns(t *testing.T) {
	dir := &Directory{Realm: "shop.test", Aliases: map[string]string{"sales@shop.test": "alice@shop.test"},
		Owners: map[string][]string{"alice@shop.test": {"info@shop.test", "@alice.test"}, "uid:1001": {"@shop.test"}}}
	tests := []struct {
		account Account
		sender  string
		want    bool
	}{
		{"alice@shop.test", "Alice@Shop.test", true}, {"alice@shop.test", "sales@shop.test", true}, {"alice@shop.test", "info@shop.test", true}, {"alice@shop.test", "x@alice.test", true},
		{"alice@shop.test", "alice+news@shop.test", true}, {"alice@shop.test", "bob@shop.test", false}, {"alice@shop.test", "x@gmail.test", false}, {"alice@shop.test", "", true},
		{"uid:1001", "www@shop.test", true}, {"uid:1001", "x@gmail.test", false}, {"uid:1002", "x@gmail.test", true}, {"forward:box@shop.test", "x@gmail.test", true}, {"", "x@gmail.test", true},
	}
	for _, tt := range tests {
		if got := dir.Owns(tt.account, tt.sender); got != tt.want {
			t.Errorf("%q as %q: %v, want %v", tt.account, tt.sender, got, tt.want)
		}
	}
}
