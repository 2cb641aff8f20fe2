package detector

type queues struct{}
