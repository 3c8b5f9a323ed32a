package server

import (
	"container/list"
	"strings"
	"sync"
)

// cache keeps what was used last, up to a number of bytes. It is safe for concurrent use.
type cache[V any] struct {
	most int // bytes

	mu    sync.Mutex // protects what follows
	size  int
	byKey map[string]*list.Element
	order *list.List // of entry[V]; what was used last is in front
}

type entry[V any] struct {
	key   string
	value V
	size  int
}

// entryOverhead is what an entry takes besides its key and its value, in bytes.
const entryOverhead = 256

func newCache[V any](most int) *cache[V] {
	return &cache[V]{most: most, byKey: map[string]*list.Element{}, order: list.New()}
}

func (c *cache[V]) get(key string) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[V]).value, true
}

// add keeps a value of so many bytes. What would take more than an eighth of the cache is left out: one client would empty it for all.
func (c *cache[V]) add(key string, value V, size int) {
	size += len(key) + entryOverhead
	if size > c.most/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return
	}
	key = strings.Clone(key) // it may be a part of a longer one
	c.byKey[key] = c.order.PushFront(entry[V]{key, value, size})
	c.size += size
	for c.size > c.most {
		last := c.order.Remove(c.order.Back()).(entry[V])
		delete(c.byKey, last.key)
		c.size -= last.size
	}
}

// held says how many bytes there are.
func (c *cache[V]) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}
