package app

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestShutdownUnderLoad: a node that ends while many write loses nothing that it has acknowledged, be it a record or a job, closes its
// sockets so that clients connect again, and ends without an error. Its clients go on at another node.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	const sockets, writers, before, after = 100, 8, 150, 10
	c := newCluster(t, func(cfg *Config) {
		cfg.Server.ShutdownDelay = 200 * time.Millisecond
		cfg.Server.Sockets.PerUser = -1
	})
	c.user(t, "ada", "user")
	token := c.on(0).login(t, "ada").access
	var ended []<-chan closed
	for range sockets {
		ended = append(ended, c.on(0).as(token).connect(t).watch())
	}
	var (
		mu       sync.Mutex // protects what follows
		subjects []string   // that are acknowledged
		mails    int        // likewise
		all      sync.WaitGroup
	)
	enough := make(chan struct{}, 1)
	acknowledge := func(subject string) {
		mu.Lock()
		defer mu.Unlock()
		if subject == "" {
			mails++
		} else if subjects = append(subjects, subject); len(subjects) == before {
			enough <- struct{}{}
		}
	}
	for w := range writers {
		all.Go(func() {
			moved := 0 // how much is written since the node has gone
			for n := 0; moved < after; n++ {
				node := min(moved, 1)
				me := c.on(node).as(token)
				if n%5 == 0 {
					a, err := me.ask(`mutation { requestPasswordReset(email: "ada@example.com") }`, nil)
					if err == nil && a.status == http.StatusOK && a.code() == "" {
						acknowledge("")
					}
				}
				subject := fmt.Sprintf("%d of writer %d", n, w)
				a, err := me.ask(`mutation($s: String!) { createThread(input: {subject: $s}) { id } }`, map[string]any{"s": subject})
				switch {
				case err != nil && node == 0:
					moved = 1 // as a balancer would have it
				case err != nil || a.code() != "":
					t.Errorf("node %d: %v %v", node, a, err)
					return
				default:
					acknowledge(subject)
					moved += node
				}
			}
		})
	}
	<-enough
	require.NoError(t, c.nodes[0].Close())
	for _, e := range ended {
		require.EqualValues(t, 1012, (<-e).code)
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	require.GreaterOrEqual(t, len(subjects), before+writers*(after-1))
	require.Equal(t, len(subjects), c.count(t, `threads WHERE subject = ANY($1)`, subjects), "each once")
	require.Positive(t, mails)
	require.GreaterOrEqual(t, c.count(t, `river_job WHERE kind = 'send_mail'`), mails)
	require.Zero(t, c.count(t, `river_job WHERE state = 'running' AND NOT EXISTS (SELECT FROM job_workers)`), "what ran has ended, or is back")
	require.Zero(t, c.count(t, `job_workers`), "the node has taken leave")

	cfg := c.cfg
	cfg.Role = RoleWork
	start(t, cfg)
	require.Eventually(t, func() bool { return c.count(t, `river_job WHERE kind = 'send_mail' AND state <> 'completed'`) == 0 },
		patience, 10*time.Millisecond, "another node does what is left")
}
