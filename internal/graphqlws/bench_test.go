package graphqlws

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// BenchmarkOffer is one delivery, Offer and Flush, to a socket whose client reads all; a batch of ten in one Flush; and to 1,000 sockets.
func BenchmarkOffer(b *testing.B) {
	payload := []byte(`{"data":{"thread":"` + strings.Repeat("x", 330) + `"}}`)
	for _, c := range []struct{ sockets, batch int }{{1, 1}, {1, 10}, {1000, 1}} {
		b.Run(fmt.Sprintf("sockets=%d/batch=%d", c.sockets, c.batch), func(b *testing.B) {
			h, ops := pushing()
			server := setup(b, h, nil)
			var all []*pushed
			for range c.sockets {
				s := server.signedIn(b)
				s.send(subscribe("1"))
				all = append(all, wait(b, ops))
				require.NoError(b, s.nc.SetDeadline(time.Time{}))
				go func() { _, _ = io.Copy(io.Discard, s.nc) }()
			}
			runtime.GC()
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += c.batch {
				op := all[i/c.batch%len(all)]
				for range c.batch {
					for !op.Offer(payload) {
						wait(b, op.drained)
					}
				}
				op.Flush()
			}
		})
	}
}

// BenchmarkIdleSocket is what a socket costs that has one operation and nothing to do: bytes of heap and stack, and of the process,
// beside a bare socket of coder/websocket, which is read and does nothing. The clients are in the process too, so tcp, connections without a
// goroutine at either end, is to be taken off.
func BenchmarkIdleSocket(b *testing.B) {
	const sockets = 2000
	h, ops := pushing()
	server := setup(b, h, nil)
	coder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Subprotocol}})
		if err == nil {
			_, _, _ = c.Read(context.Background())
		}
	}))
	b.Cleanup(coder.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, listener.Close()) })
	for name, open := range map[string]func() net.Conn{
		"graphqlws": func() net.Conn {
			s := server.signedIn(b)
			s.send(subscribe("1"))
			wait(b, ops)
			return s.nc
		},
		"coder": func() net.Conn { return (&bundle{http: coder}).open(b).nc },
		"tcp": func() net.Conn {
			nc, err := net.Dial("tcp", listener.Addr().String())
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, nc.Close()) })
			far, err := listener.Accept()
			require.NoError(b, err)
			return far
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				heap, stack, rss := memory(b)
				conns := make([]net.Conn, sockets)
				for i := range conns {
					conns[i] = open()
				}
				heapAfter, stackAfter, rssAfter := memory(b)
				b.ReportMetric(float64(heapAfter-heap)/sockets, "heap-B/socket")
				b.ReportMetric(float64(stackAfter-stack)/sockets, "stack-B/socket")
				b.ReportMetric(float64(rssAfter-rss)/sockets, "RSS-B/socket")
				for _, nc := range conns {
					require.NoError(b, nc.Close())
				}
			}
		})
	}
}

// memory is the heap and the stacks in use, and what the process has of the machine's memory.
func memory(b *testing.B) (heap, stack, rss int64) {
	for range 4 { // a collection halves a stack
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
		require.NoError(b, err)
		rss = pages * int64(os.Getpagesize())
	}
	return int64(m.HeapAlloc), int64(m.StackInuse), rss
}
