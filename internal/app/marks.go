package app

import (
	"context"

	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/store"
)

// marks keeps the executor's marks in the store.
type marks struct{ *store.DB }

func (m marks) Marks(ctx context.Context) ([]enforce.Mark, error) {
	rows, err := m.Switched(ctx)
	all := make([]enforce.Mark, len(rows))
	for i, r := range rows {
		all[i] = enforce.Mark(r)
	}
	return all, err
}

func (m marks) PutMark(ctx context.Context, mark enforce.Mark) error {
	return m.PutSwitched(ctx, store.Switched(mark))
}

func (m marks) DropMark(ctx context.Context, mark enforce.Mark) error {
	return m.DropSwitched(ctx, store.Switched(mark))
}
