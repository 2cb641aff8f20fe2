package storetest

import (
	"testing"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/rules"
)

func switches(t *testing.T, s Store) {
	hold := store.Switched{Switch: "cpanel", Subject: "alice@shop.test", Action: rules.Hold, Undo: `{"was":"free"}`}
	block := store.Switched{Switch: "cpanel", Subject: "alice@shop.test", Action: rules.Block}
	other := store.Switched{Switch: "plesk", Subject: "o'neil\n@shop.test", Action: rules.Block, Undo: "250", Done: true}
	for _, w := range []store.Switched{hold, block, other, other} {
		must(t, s.PutSwitched(t.Context(), w))
	}
	same(t, "in order", ok[[]store.Switched](t)(s.Switched(t.Context())), []store.Switched{hold, block, other})

	hold.Done = true
	must(t, s.PutSwitched(t.Context(), hold))
	must(t, s.DropSwitched(t.Context(), block))
	must(t, s.DropSwitched(t.Context(), block))
	same(t, "one confirmed, one taken back", ok[[]store.Switched](t)(s.Switched(t.Context())), []store.Switched{hold, other})
}
