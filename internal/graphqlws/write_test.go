package graphqlws

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// narrow has the kernel take little.
func narrow(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, nc := range conns {
		require.NoError(t, nc.(*net.TCPConn).SetReadBuffer(32<<10))
		require.NoError(t, nc.(*net.TCPConn).SetWriteBuffer(32<<10))
	}
}

// fill offers until the kernel and the buffer are full, and returns how many were taken.
func fill(op *pushed, payload []byte) (taken int) {
	for op.Offer(payload) {
		taken++
		op.Flush()
	}
	return taken
}

// TestSlowConsumer: for a client that reads nothing WriteBuffer waits and no more, other sockets do not notice, and when it reads again it
// gets everything that was taken, in order, and the operation is told that there is room.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	b := setup(t, h, nil)
	slow, quick := b.signedIn(t), b.signedIn(t)
	slow.send(subscribe("1"))
	op := wait(t, ops)
	quick.send(subscribe("1"))
	other := wait(t, ops)
	narrow(t, slow.nc, op.Conn().nc)

	payload := []byte(`"` + strings.Repeat("x", 5000) + `"`)
	c := op.Conn()
	taken := 0
	for range 1000 {
		taken += fill(op, payload)
		c.mu.Lock()
		require.LessOrEqual(t, c.waiting, 256<<10)
		c.mu.Unlock()
	}
	require.EqualValues(t, 1000, b.Stats().Refused)

	for range 10 {
		require.NoError(t, other.Send([]byte(`1`)))
		quick.expect(`{"id":"1","type":"next","payload":1}`)
	}

	sent := make(chan error, 1)
	go func() { sent <- op.Send([]byte(`"sent"`)) }() // waits
	slow.send(`{"type":"ping"}`)                      // is not read before there is room, or answered behind what waits
	for range taken {
		_, text, err := slow.next()
		require.NoError(t, err)
		require.Len(t, text, len(`{"id":"1","type":"next","payload":}`)+len(payload))
	}
	wait(t, op.drained)
	require.NoError(t, wait(t, sent))
	last := map[string]bool{}
	for range 2 {
		_, text, err := slow.next()
		require.NoError(t, err)
		last[text] = true
	}
	require.Equal(t, map[string]bool{`{"id":"1","type":"next","payload":"sent"}`: true, pong: true}, last)
	require.True(t, op.Offer(payload))
	op.Flush()
	_, _, err := slow.next()
	require.NoError(t, err)
	require.Empty(t, op.done)
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waiting == 0 && c.queue == nil && !c.draining
	}, patience, time.Millisecond)
}

// TestLargerThanTheBuffer: one message may wait, however long it is.
func TestLargerThanTheBuffer(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	b := setup(t, h, &Config{WriteBuffer: 100})
	s := b.signedIn(t)
	s.send(subscribe("1"))
	op := wait(t, ops)
	long := []byte(`"` + strings.Repeat("x", 100_000) + `"`)
	require.True(t, op.Offer(long))
	require.False(t, op.Offer([]byte(`1`)))
	op.Flush()
	s.expect(`{"id":"1","type":"next","payload":` + string(long) + `}`)
	wait(t, op.drained)
	require.NoError(t, op.Send(long))
	require.NoError(t, op.Send(long))
	s.expect(`{"id":"1","type":"next","payload":`+string(long)+`}`, `{"id":"1","type":"next","payload":`+string(long)+`}`)
}

// TestDrainTimeout: a socket that takes nothing for so long is closed, and one that takes a little is not.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	h.closed = make(chan *Conn, 1)
	b := setup(t, h, &Config{DrainTimeout: 20 * time.Millisecond})
	s := b.signedIn(t)
	s.send(subscribe("1"))
	op := wait(t, ops)
	fill(op, []byte(strings.Repeat("1", 60_000)))
	wait(t, op.done)
	wait(t, h.closed)
	require.EqualValues(t, 1, b.Stats().Slow)
	require.Empty(t, op.drained)

	synctest.Test(t, func(t *testing.T) {
		h, ops := pushing()
		_, c := piped(t, h, &Config{PingInterval: time.Hour})
		c.send(`{"type":"connection_init"}`)
		c.expect(`{"type":"connection_ack"}`)
		c.send(subscribe("1"))
		op := <-ops
		start := time.Now()
		require.True(t, op.Offer([]byte(strings.Repeat("1", 10_000))))
		op.Flush()
		part := make([]byte, 1000)
		for range 10 { // five minutes, which is longer than DrainTimeout
			<-time.After(29 * time.Second)
			n, err := c.nc.Read(part)
			require.NoError(t, err)
			require.Positive(t, n)
		}
		require.Empty(t, op.done)
		<-op.done
		require.Less(t, time.Since(start), 6*time.Minute)
		require.NoError(t, c.nc.Close())
	})
}

// TestClientThatDoesNotRead: it is not read either, so that its own messages do not fill the server's memory.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, &Config{MessageRate: 1_000_000, WriteBuffer: 10_000})
	s := b.signedIn(t)
	var c *Conn
	for c = range b.conns {
	}
	narrow(t, s.nc, c.nc)
	long := frame(finBit|opText, `{"type":"ping","payload":{"a":"`+strings.Repeat("x", 5000)+`"}}`)
	written := 0
	for ; ; written++ {
		require.NoError(t, s.nc.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		if n, err := s.nc.Write(long); err != nil {
			require.NoError(t, s.nc.SetWriteDeadline(time.Now().Add(patience)))
			go func() { _, _ = s.nc.Write(long[n:]) }()
			break
		}
		c.mu.Lock()
		require.Less(t, c.waiting, 16_000)
		c.mu.Unlock()
	}
	for range written + 1 {
		_, text, err := s.next()
		require.NoError(t, err)
		require.Contains(t, text, `"pong"`)
	}
}
