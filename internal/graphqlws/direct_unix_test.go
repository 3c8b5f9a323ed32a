//go:build unix

package graphqlws

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBatch: what was offered is one write, in order, with what others send between it.
func TestBatch(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	b := setup(t, h, nil)
	s := b.signedIn(t)
	s.send(subscribe("1"))
	one := wait(t, ops)
	s.send(subscribe("2"))
	two := wait(t, ops)
	c := one.Conn()
	writes := 0
	c.mu.Lock()
	call := c.direct.call
	c.direct.call = func(fd uintptr) bool { writes++; return call(fd) }
	c.mu.Unlock()

	for i := range 10 {
		require.True(t, one.Offer([]byte(strconv.Itoa(i))))
		require.True(t, two.Offer([]byte(strconv.Itoa(-i))))
	}
	c.mu.Lock()
	require.Zero(t, writes)
	c.mu.Unlock()
	one.Flush()
	two.Flush()
	c.mu.Lock()
	require.Equal(t, 1, writes)
	c.mu.Unlock()
	for i := range 10 {
		s.expect(fmt.Sprintf(`{"id":"1","type":"next","payload":%d}`, i), fmt.Sprintf(`{"id":"2","type":"next","payload":%d}`, -i))
	}
	require.True(t, one.Offer([]byte(`1`)))
	require.NoError(t, two.Send([]byte(`2`)))
	require.True(t, one.Offer([]byte(`3`)))
	two.Complete()
	one.Flush()
	s.expect(
		`{"id":"1","type":"next","payload":1}`, `{"id":"2","type":"next","payload":2}`,
		`{"id":"1","type":"next","payload":3}`, `{"id":"2","type":"complete"}`,
	)
	require.Equal(t, 3, writes)
}

// TestBrokenConnection: a write that fails ends the socket and its operations.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	h.closed = make(chan *Conn, 1)
	b := setup(t, h, nil)
	s := b.signedIn(t)
	s.send(subscribe("1"))
	op := wait(t, ops)
	c := op.Conn()
	c.mu.Lock()
	c.direct.call = func(uintptr) bool { c.direct.err = syscall.EPIPE; return true }
	c.mu.Unlock()
	require.NoError(t, op.Send([]byte(`1`)))
	require.ErrorIs(t, op.Send([]byte(`1`)), ErrDone)
	require.ErrorIs(t, op.Context().Err(), context.Canceled)
	wait(t, op.done)
	wait(t, h.closed)
	s.expectEnd()
}
