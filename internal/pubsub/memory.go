package pubsub

import (
	"context"
	"sync"
)

// Bus joins the nodes of a process. The zero value is empty.
type Bus struct {
	mu    sync.Mutex                  // protects nodes
	nodes map[*Node]func(from string) // what each does with a hint
}

// NewMemory returns a node among those of bus. It is also for one that is alone, and has nobody to wake.
func NewMemory(bus *Bus, cfg *Config) (*Node, error) {
	n, err := newNode("memory", cfg)
	if err != nil {
		return nil, err
	}
	n.session = func(ctx context.Context, ready func(func(context.Context) error), got func(string)) error {
		bus.join(n, got)
		defer bus.leave(n)
		ready(func(context.Context) error {
			bus.send(n)
			return nil
		})
		<-ctx.Done()
		return ctx.Err()
	}
	return n, nil
}

func (b *Bus) join(n *Node, got func(string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nodes == nil {
		b.nodes = map[*Node]func(string){}
	}
	b.nodes[n] = got
}

func (b *Bus) leave(n *Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.nodes, n)
}

func (b *Bus) send(n *Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, got := range b.nodes {
		got(n.id)
	}
}
