package app

// An aside runs what takes long on a thread of its own, at a lower priority:
// a thread of the gate that is woken then need not wait until one that writes
// has used up its turn. A nil aside runs it where it is called.
type aside struct{ jobs chan func() }

func startAside() *aside {
	a := &aside{make(chan func())}
	go func() {
		lowerPriority()
		for job := range a.jobs {
			job()
		}
	}()
	return a
}

func (a *aside) stop() { close(a.jobs) }

// do runs job, and returns when it is done.
func (a *aside) do(job func()) {
	if a == nil {
		job()
		return
	}
	done := make(chan struct{})
	a.jobs <- func() {
		defer close(done)
		job()
	}
	<-done
}
