package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// roleBroadcast is the argument that makes this program the bare broadcast server, which Godstack's sockets are compared to: it writes
// bytes that it is given to the sockets of a group. It signs nobody in, knows no subscriptions, and waits for the slowest socket.
const roleBroadcast = "broadcast"

// readyEvent is what the broadcast server says first to a socket.
const readyEvent = `{"kind":"READY"}`

// broadcaster holds the sockets, one goroutine each.
type broadcaster struct {
	mu     sync.Mutex // protects groups
	groups map[string][]*websocket.Conn
}

// ServeHTTP has a socket join the group that its path names.
func (b *broadcaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	group := r.URL.Path[1:]
	b.mu.Lock()
	b.groups[group] = append(b.groups[group], c)
	b.mu.Unlock()
	// A context that never ends costs a read and a write the least.
	err = c.Write(context.Background(), websocket.MessageText, []byte(readyEvent))
	for err == nil {
		_, _, err = c.Read(context.Background())
	}
	b.mu.Lock()
	b.groups[group] = slices.DeleteFunc(b.groups[group], func(o *websocket.Conn) bool { return o == c })
	b.mu.Unlock()
}

// publish writes a message to all sockets of a group.
func (b *broadcaster) publish(group string, message []byte) {
	b.mu.Lock()
	sockets := slices.Clone(b.groups[group])
	b.mu.Unlock()
	for _, c := range sockets {
		_ = c.Write(context.Background(), websocket.MessageText, message) // who has gone is seen by reading
	}
}

// broadcastMain is the program in its role as the broadcast server: it says where it listens and serves until ctx is done.
func broadcastMain(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b := &broadcaster{groups: map[string][]*websocket.Conn{}}
	hs := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = hs.Close() })()
	fmt.Fprintf(stdout, "http://%s\n", ln.Addr())
	go obey(stdin, stdout, b.publish)
	if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// orderCollect is the order to free all memory that can be, and then to say how many goroutines there are.
const orderCollect = "collect"

// obey does what a process is told on its standard input, line by line: collect, or a group and a message for publish.
func obey(stdin io.Reader, stdout io.Writer, publish func(group string, message []byte)) {
	for r := bufio.NewReaderSize(stdin, 64<<10); ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return // the bench has ended, and ends this process
		}
		order, message, _ := bytes.Cut(line[:len(line)-1], []byte(" "))
		if string(order) == orderCollect {
			for range 2 { // what is in a sync.Pool outlives one collection
				debug.FreeOSMemory()
			}
			fmt.Fprintln(stdout, runtime.NumGoroutine())
		} else if publish != nil {
			publish(string(order), message)
		}
	}
}
