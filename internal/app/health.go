package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// healthTimeout bounds how long a program may take to say how it is. /readyz takes 2 s at most.
const healthTimeout = 5 * time.Second

// Healthy asks the program that listens on addr, as [Config.Addr] has it, whether it runs or, where ready is true, whether it serves. It
// returns the line that the program answers, or an error that says what keeps it.
func Healthy(ctx context.Context, addr string, ready bool) (line string, err error) {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
		return "", fmt.Errorf("nobody knows the port of %q", addr)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr) // where addr is all addresses, this machine's
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("ask %s of %s: %w", path, addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text := bufio.NewScanner(resp.Body)
	text.Scan()
	line = text.Text()
	switch {
	case text.Err() != nil:
		return "", fmt.Errorf("ask %s of %s: %w", path, addr, text.Err())
	case resp.StatusCode == http.StatusServiceUnavailable && line != "":
		return "", errors.New(line)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("ask %s of %s: the answer is %s", path, addr, resp.Status)
	}
	return line, nil
}
