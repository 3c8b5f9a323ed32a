package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// startCaddy runs the balancer of deploy/Caddyfile before two nodes, on this machine alone, and returns its address.
func startCaddy(t *testing.T, node1, node2 string) string {
	t.Helper()
	file, err := os.ReadFile("../../deploy/Caddyfile")
	require.NoError(t, err)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close()) // it is Caddy's now, unless somebody is quicker
	config := "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n" + strings.NewReplacer("node1:8080", node1, "node2:8080", node2).Replace(string(file))
	dir := t.TempDir()
	path := filepath.Join(dir, "Caddyfile")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	cmd := exec.CommandContext(t.Context(), "caddy", "run", "--adapter", "caddyfile", "--config", path)
	cmd.Env = []string{"PUBLIC_URL=http://" + addr, "HOME=" + dir}
	require.NoError(t, cmd.Start(), "this test needs caddy: scripts/install installs it")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return addr
}

// TestTheBalancer has Caddy before two nodes, of which one is stopped: it passes on sockets and spreads them, and of what is asked meanwhile
// nothing is refused.
func TestTheBalancer(t *testing.T) {
	t.Parallel()
	environ := inProduction(dbtest.URL(t), "TRUSTED_PROXIES=127.0.0.1")
	first, node1 := serve(t, environ...)
	_, node2 := serve(t, environ...)
	addr := startCaddy(t, node1, node2)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	ask := func() (int, error) {
		resp, err := client.Get("http://" + addr + "/graphql?query=%7B__typename%7D")
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	require.Eventually(t, func() bool {
		status, err := ask()
		return err == nil && status == http.StatusOK
	}, time.Minute, 20*time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 2)
	for range 2 {
		socket, resp, err := websocket.Dial(ctx, "ws://"+addr+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
		require.NoError(t, err)
		if resp.Body != nil {
			require.NoError(t, resp.Body.Close())
		}
		defer func() { _ = socket.CloseNow() }()
		require.NoError(t, wsjson.Write(ctx, socket, map[string]string{"type": "connection_init"}))
		var ack struct{ Type string }
		require.NoError(t, wsjson.Read(ctx, socket, &ack))
		require.Equal(t, "connection_ack", ack.Type)
		go func() {
			for {
				if _, _, err := socket.Read(ctx); err != nil {
					ended <- err
					return
				}
			}
		}()
	}

	require.NoError(t, first.Process.Signal(syscall.SIGTERM))
	stopped := make(chan error, 1)
	go func() { stopped <- first.Wait() }()
	for asked, over := 0, false; !over || asked < 50; asked++ {
		status, err := ask()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		select {
		case err := <-stopped:
			require.NoError(t, err)
			over = true
		default:
		}
	}
	var closed websocket.CloseError
	require.ErrorAs(t, <-ended, &closed)
	require.Equal(t, websocket.StatusServiceRestart, closed.Code)
	require.Empty(t, ended, "the other socket is on the other node, and stays")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
