package record_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

// Who subscribes while a record is written to gets a snapshot and then each version once, in order.
func TestSubscribeInAStorm(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "v1")
	const subscribers, last = 100, 400
	stop := make(chan struct{})
	wrote := make(chan error, 1)
	go func() {
		defer close(wrote)
		for v := 2; ; v++ {
			select {
			case <-stop:
				_, err := b.Exec(context.Background(), `UPDATE threads SET subject = 'last' WHERE id = $1`, x.UUID)
				wrote <- err
				return
			default:
			}
			if _, err := b.Exec(context.Background(), `UPDATE threads SET subject = $2 WHERE id = $1`, x.UUID, fmt.Sprint("v", v)); err != nil {
				wrote <- err
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.Eventually(t, func() bool { return b.version(t, x) > last/10 }, 20*time.Second, time.Millisecond)
	streams := make([]*sink, subscribers)
	for i := range streams {
		switch i % 3 {
		case 0:
			streams[i] = b.tail(t, followThread, "id", x)
		case 1:
			streams[i] = b.tail(t, followThreads)
		default:
			streams[i] = b.tail(t, followRecords, "refs", refs(x))
		}
	}
	close(stop)
	require.NoError(t, <-wrote)
	end := b.version(t, x)
	for i, s := range streams {
		version := 0
		for version < end {
			e, ok := s.next(ctx)
			require.True(t, ok, "%d: %s", i, e.Kind)
			if e.Kind == "READY" {
				continue
			}
			if version > 0 {
				require.Equal(t, version+1, *e.Version, "%d: %s", i, e)
			} else {
				require.Equal(t, "SNAPSHOT", e.Kind)
			}
			version = *e.Version
			require.GreaterOrEqual(t, int(e.Record["version"].(float64)), version, "the record is as of delivery")
		}
	}
}

// A client that is cut again and again, anywhere, and goes on where it was, hears of each version once and in order.
func TestCutsInAStorm(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	const threads, writers, writes = 4, 4, 60
	var ids []any
	first := b.thread(t, "1")
	list := refs(first)
	for range threads - 1 {
		list = append(list, refs(b.thread(t, "1"))...)
	}
	for _, r := range list {
		ids = append(ids, r["id"])
	}
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for range writes {
				tx, err := b.Begin(context.Background())
				if err == nil {
					// In the order of ids, or two of them would wait for each other.
					_, err = tx.Exec(context.Background(), `UPDATE threads t SET subject = subject || 'x' FROM
						(SELECT id FROM threads WHERE random() < 0.5 ORDER BY id FOR UPDATE) s WHERE t.id = s.id`)
				}
				if err == nil {
					if r.IntN(5) == 0 {
						err = tx.Rollback(context.Background())
					} else {
						err = tx.Commit(context.Background())
					}
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	documents := map[string][]any{followThreads: {"where", object{"subjectNEQ": "never"}}, followRecords: {"refs", list}}
	ended := make(chan string, len(documents))
	finished := make(chan struct{})
	for document, vars := range documents {
		go func() {
			versions := map[string]int{}
			cursor := ""
			r := rand.New(rand.NewPCG(3, uint64(len(document))))
			cuts := 0
			for {
				v := vars
				if cursor != "" {
					v = append(append([]any{}, vars...), "since", cursor)
				}
				s, err := b.open(b.ada.UUID, document, v...)
				if err != nil {
					ended <- err.Error()
					return
				}
				for range 1 + r.IntN(40) {
					one, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
					e, ok := s.next(one)
					cancel()
					if !ok {
						break
					}
					if e.Kind == "SNAPSHOT" && cursor != "" || e.Kind == "RESYNC" {
						ended <- "began anew: " + e.String()
						return
					}
					if e.Kind != "SNAPSHOT" {
						cursor = e.Cursor
					}
					if e.Kind == "READY" {
						continue
					}
					if was, there := versions[e.RecordID]; there && *e.Version != was+1 {
						ended <- fmt.Sprintf("%s after v%d, %d cuts", e, was, cuts)
						return
					}
					versions[e.RecordID] = *e.Version
				}
				s.close()
				cuts++
				select {
				case <-finished:
					all := true
					for _, id := range ids {
						var current int
						thread, err := record.ParseID(id.(string))
						if err == nil {
							err = b.QueryRow(ctx, `SELECT version FROM threads WHERE id = $1`, thread.UUID).Scan(&current)
						}
						if err != nil {
							ended <- err.Error()
							return
						}
						all = all && versions[id.(string)] == current
					}
					if all {
						ended <- ""
						return
					}
				case <-ctx.Done():
					ended <- fmt.Sprint("never complete: ", versions)
					return
				default:
				}
			}
		}()
	}
	for range writers {
		require.NoError(t, <-done)
	}
	close(finished)
	for range documents {
		require.Empty(t, <-ended)
	}
}
