package detector

import "testing"

// What is known of the generation before comes back with its pages.
func TestEveryoneIsKeptByPage(t *testing.T) {
	e, restored := newEveryone(1024), newEveryone(1024)
	for h := range uint64(1500) {
		e.add(recipientHash(h))
	}
	if e.gen[1] == nil {
		t.Fatal("1,500 of 1,024 recipients, and no second generation")
	}
	for p := range e.pages() {
		copy(restored.page(p), e.page(p))
	}
	for h := range uint64(1500) {
		if !e.has(recipientHash(h)) || !restored.has(recipientHash(h)) {
			t.Fatalf("recipient %d is forgotten", h)
		}
	}
}
