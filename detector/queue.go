package detector

type queues struct{}

func (q *queues) fields(c *codec) {}
