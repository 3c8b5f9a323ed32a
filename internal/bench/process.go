package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// process is a server that runs as a process of its own.
type process struct {
	cmd    *exec.Cmd
	addr   string
	app    string   // application_name of its backends
	tokens []string // of users; nil where none are asked for
	orders io.WriteCloser
	said   chan string // the last line of its standard output that nobody has taken
}

// servers are the two that are compared, by target.
type servers [2]*process

var printedAddress = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// launch starts a server and returns once it has printed its address.
func launch(path, role, app string, environ ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, role), app: app, said: make(chan string, 1)} // stop ends it, in good order
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, environ...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = endsWithParent
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(stdout)
	line, err := r.ReadString('\n')
	if p.addr = printedAddress.FindString(line); p.addr != "" {
		go func() {
			for lines := bufio.NewScanner(r); lines.Scan(); {
				select {
				case p.said <- lines.Text():
				default: // nobody asked
				}
			}
		}()
		return p, nil
	}
	return nil, errors.Join(fmt.Errorf("%s %s does not say where it listens: %q", path, role, line), err, p.stop())
}

// collect has a server that obeys free what memory it can, and returns what it holds then.
func (p *process) collect() (resident int64, goroutines int, err error) {
	if _, err := io.WriteString(p.orders, orderCollect+"\n"); err != nil {
		return 0, 0, err
	}
	select {
	case line := <-p.said:
		if goroutines, err = strconv.Atoi(line); err != nil {
			return 0, 0, fmt.Errorf("count goroutines: %w", err)
		}
	case <-time.After(patience):
		return 0, 0, fmt.Errorf("the server has not collected its garbage within %s", patience)
	}
	resident, err = residentBytes(p.cmd.Process.Pid)
	return resident, goroutines, err
}

// stop ends the server and waits for that.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
		return nil // a signal from the terminal came first, and the second one kills
	}
	return err
}

func (s servers) stop() error {
	var err error
	for _, p := range s {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	return err
}

func (s servers) rss(into *[2]int64) (err error) {
	for t, p := range s {
		if into[t], err = residentBytes(p.cmd.Process.Pid); err != nil {
			return err
		}
	}
	return nil
}

// starts is how often the start of godstack is timed.
const starts = 5

// rateLimit is so high that no load reaches it: requests are counted, and none is refused.
const rateLimit = 10_000_000

// environ is what Godstack finds in its environment.
func (c config) environ(d *data, url string) []string {
	return []string{
		"ENV=production", "ADDR=127.0.0.1:0", "PUBLIC_URL=" + publicURL, "LOG_LEVEL=" + c.logLevel, databaseURL + "=" + url,
		jwtKeys + "=" + d.keys.jwt, secretKeys + "=" + d.keys.secret, fmt.Sprintf("RATE_LIMIT=%d", rateLimit),
		"SMTP_URL=none",
	}
}

// startBoth starts both servers, and godstack a few times to see how long that takes until it is ready. What it returns must be stopped,
// also with an error.
func startBoth(ctx context.Context, cfg config, d *data, url string) (s servers, took []time.Duration, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, nil, err
	}
	program, role := cfg.program, roleGodstack
	if !cfg.rules {
		program, role = self, roleUnrestricted
	}
	for i := range starts {
		began := time.Now()
		s[godstack], err = launch(program, role, "godstack", cfg.environ(d, url)...)
		if err != nil {
			return s, nil, err
		}
		if err := ready(ctx, s[godstack].addr); err != nil {
			return s, nil, err
		}
		took = append(took, time.Since(began))
		if i < starts-1 {
			err := s[godstack].stop()
			s[godstack] = nil
			if err != nil {
				return s, nil, fmt.Errorf("stop godstack: %w", err)
			}
		}
	}
	if s[godstack].tokens, err = d.signIn(); err != nil {
		return s, nil, err
	}
	s[baseline], err = launch(self, roleBaseline, roleBaseline, databaseURL+"="+url)
	return s, took, err
}

// ready asks a server that accepts connections whether it is ready.
func ready(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("godstack is not ready: %s", resp.Status)
	}
	return nil
}
