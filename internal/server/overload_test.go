package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/turn"
	"godstack/internal/viewer"
)

// somebody has each authorization be a user of its own.
func somebody(_ context.Context, authorization string) (viewer.Viewer, bool, error) {
	if authorization == "" {
		return viewer.Viewer{}, false, nil
	}
	return viewer.Viewer{ID: uuid.NewSHA1(uuid.Nil, []byte(authorization)), Role: "user"}, true, nil
}

// busy is a server on which "fail" takes as long as the test likes.
type busy struct {
	*bundle
	release chan struct{}
}

func newBusy(t *testing.T, l Load, configure ...func(*Deps, *Config)) *busy {
	t.Helper()
	b := &busy{release: make(chan struct{})}
	b.bundle = setup(t, append(configure, func(d *Deps, c *Config) { d.Viewer, c.Load = somebody, l })...)
	b.resolvers["fail"] = func(ctx context.Context) (any, error) {
		select {
		case <-b.release:
			return "slow", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return b
}

// pending is a request that is not answered yet.
type pending chan *httptest.ResponseRecorder

// answer waits for it.
func (p pending) answer(t *testing.T) answer {
	t.Helper()
	w := <-p
	a := answer{Status: w.Code, Header: w.Header(), raw: w.Body.String()}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), a.raw)
	return a
}

// ask asks in somebody's name, on a goroutine of its own.
func (b *busy) ask(who, text string) pending {
	done := make(pending, 1)
	r := post(document(text), "Authorization", who)
	go func() {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		done <- w
	}()
	synctest.Wait()
	return done
}

// refusedNow holds that an answer says to come again.
func refusedNow(t *testing.T, a answer) {
	t.Helper()
	require.Equal(t, http.StatusServiceUnavailable, a.Status, a.raw)
	require.Len(t, a.Errors, 1)
	require.Equal(t, "UNAVAILABLE", a.Errors[0].code())
	require.Empty(t, a.Data)
	after := a.Errors[0].Extensions["retryAfter"].(float64)
	require.GreaterOrEqual(t, after, 1.0)
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, float64(seconds), after)
	require.Less(t, float64(seconds), after+1)
}

// TestOverload: what there is no turn and no room for is refused at once, what waits for too long then, and the rest is answered. What asks
// the schema alone, and what signs out, waits for nobody.
func TestOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, Load{Turns: 2, Waiting: 2, Patience: time.Second}, func(d *Deps, _ *Config) { d.Parting = []string{"rename"} })
		running := []pending{b.ask("ada", `{ a: fail }`), b.ask("bob", `{ b: fail }`)}
		start := time.Now()
		first := b.ask("cleo", `{ c: ok }`)
		second := b.ask("dan", `mutation { other: __typename rename(id: 1, expectedVersion: 1) ... on Mutation { again: rename(id: 1, expectedVersion: 1) } }`)
		require.Equal(t, 200, second.answer(t).Status, "it waits for nobody")
		second = b.ask("dan", `{ d: ok }`)
		refusedNow(t, b.ask("eve", `{ e: ok }`).answer(t))
		require.Equal(t, start, time.Now(), "at once")
		require.JSONEq(t, `{"data": {"__typename": "fine"}}`, b.ask("eve", `{ __typename }`).answer(t).raw)
		refusedNow(t, first.answer(t))
		refusedNow(t, second.answer(t))
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, turn.Stats{Turns: 5, Taken: 2, Refused: map[turn.Reason]uint64{turn.Full: 1, turn.Late: 2, turn.Crowded: 0}}, b.Load())
		waits := b.ask("fay", `{ f: ok }`)
		close(b.release)
		for _, a := range append(running, waits) {
			require.Equal(t, 200, a.answer(t).Status)
		}
		require.Zero(t, b.Load().Taken)
		require.Len(t, b.log.entries(t, "overload: operations are refused"), 2, "once a second")
		require.Empty(t, b.log.entries(t, "panic"))
	})
}

// TestNobodyIsStarved: neither one user nor one document has all turns, whoever asks and however often; nor has one query with many fields.
func TestNobodyIsStarved(t *testing.T) {
	t.Parallel()
	for name, crowd := range map[string]func(b *busy, i int) pending{
		"a user":     func(b *busy, i int) pending { return b.ask("ada", fmt.Sprintf(`{ a%d: fail }`, i)) },
		"a document": func(b *busy, i int) pending { return b.ask(fmt.Sprint("user", i), `{ fail }`) },
		"nobody":     func(b *busy, i int) pending { return b.ask("", fmt.Sprintf(`{ a%d: fail }`, i)) },
		"many fields": func(b *busy, i int) pending {
			return b.ask("ada", fmt.Sprintf(`{ a%d: fail ...{ b: fail c: fail } ...D } fragment D on Query { d: fail }`, i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusy(t, Load{Turns: 4, Waiting: 20})
				var crowded []pending
				for i := range 50 {
					crowded = append(crowded, crowd(b, i))
				}
				require.Equal(t, 10, b.Load().Waiting, "half of the places")
				require.JSONEq(t, `{"data": {"ok": "fine"}}`, b.ask("zoe", `{ ok }`).answer(t).raw)
				close(b.release)
				answered := 0
				for _, a := range crowded {
					if a := a.answer(t); a.Status == 200 {
						answered++
					} else {
						refusedNow(t, a)
					}
				}
				require.EqualValues(t, 50-answered, b.Load().Refused[turn.Crowded])
				require.Greater(t, answered, 10)
				require.Zero(t, b.Load().Taken)
				require.Zero(t, b.Load().Waiting)
			})
		})
	}
}

// TestSlowFieldsHaveTurnsOfTheirOwn: what takes long for itself, as signing in, holds up nobody else, and may wait for longer.
func TestSlowFieldsHaveTurnsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, Load{Turns: 4, Waiting: 1}, func(d *Deps, _ *Config) { d.Slow = []string{"rename"} })
		b.resolvers["rename"] = b.resolvers["fail"]
		var slow []pending
		for i := range 3 {
			slow = append(slow, b.ask("", fmt.Sprintf(`mutation { a%d: rename(id: 1, expectedVersion: 1) }`, i)))
		}
		require.Equal(t, turn.Stats{Turns: 7, Taken: 2, Waiting: 1, Refused: map[turn.Reason]uint64{turn.Full: 0, turn.Late: 0, turn.Crowded: 0}}, b.Load())
		require.Equal(t, 200, b.ask("ada", `{ ok }`).answer(t).Status)
		start := time.Now()
		refusedNow(t, slow[2].answer(t))
		require.Equal(t, 15*time.Second, time.Since(start))
		close(b.release)
		for _, a := range slow[:2] {
			require.Equal(t, 200, a.answer(t).Status)
		}
	})
}

// TestOverloadOverSockets: operations over sockets and event streams take turns, as does who comes by a socket; a subscription has its turn
// until it has begun, and who goes gives theirs back.
func TestOverloadOverSockets(t *testing.T) {
	t.Parallel()
	b := newBusy(t, Load{Turns: 1, Waiting: 1, Patience: time.Minute})
	url := listen(t, b.bundle).URL
	s, _ := connected(t, url, "ada")
	taken := func(n, waiting int) {
		t.Helper()
		require.Eventually(t, func() bool { l := b.Load(); return l.Taken == n && l.Waiting == waiting }, 10*time.Second, time.Millisecond)
	}
	s.send(subscribe("1", `{ fail }`))
	taken(1, 0)
	s.send(subscribe("2", `{ ok }`))
	taken(1, 1)
	refuses := func(errs []apiError) {
		t.Helper()
		require.Len(t, errs, 1)
		require.Equal(t, "UNAVAILABLE", errs[0].code())
		require.Positive(t, errs[0].Extensions["retryAfter"])
	}
	for _, document := range []string{`{ ok }`, `subscription { ticks }`} {
		s.send(subscribe("3", document))
		m := s.receive()
		require.Equal(t, message{ID: "3", Type: "error", Payload: m.Payload}, m)
		var errs []apiError
		require.NoError(t, json.Unmarshal(m.Payload, &errs), string(m.Payload))
		refuses(errs)
	}
	other, _, err := dial(t, url, nil)
	require.NoError(t, err)
	other.send(message{Type: "connection_init"})
	code, reason := other.closed()
	require.EqualValues(t, 1013, code, "clients come again")
	require.Equal(t, "too much to do at the moment: nothing was done", reason)
	c := b.events(t, url, "POST", "/graphql", document(`subscription { ticks }`))
	var told answer
	require.NoError(t, json.Unmarshal([]byte(c.next().data), &told))
	refuses(told.Errors)
	c.expect("complete", "")
	c.ended()

	s.send(message{ID: "1", Type: "complete"})
	require.JSONEq(t, `{"data": {"ok": "fine"}}`, string(s.receive().Payload))
	require.Equal(t, message{ID: "2", Type: "complete"}, s.receive())
	taken(0, 0)

	begun := make(chan struct{})
	b.begin = func(context.Context) error {
		begun <- struct{}{}
		<-b.release
		return nil
	}
	ticks := b.ticking()
	s.send(subscribe("4", `subscription { ticks }`))
	<-begun
	taken(1, 0)
	close(b.release)
	ticks <- "one"
	require.Equal(t, "next", s.receive().Type)
	taken(0, 0)
}

func TestLoadIsChecked(t *testing.T) {
	t.Parallel()
	for _, l := range []Load{{Turns: -1}, {Waiting: -1}, {Patience: -1}} {
		_, err := New(Deps{Schema: setup(t).executable()}, &Config{Load: l})
		require.ErrorContains(t, err, "Load")
	}
	require.Equal(t, turn.Stats{}, setup(t).Load(), "any number")
}
