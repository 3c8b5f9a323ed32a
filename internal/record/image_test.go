package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/changelog"
	"godstack/internal/dbtest"
)

// dump is what a record holds, where NaN equals NaN.
func dump(s *Store, n Node) string {
	var b strings.Builder
	v := reflect.ValueOf(n)
	for i := range s.Fields {
		f := &s.Fields[i]
		x := f.value(v)
		if at, ok := x.(time.Time); ok {
			x = at.UTC().Format(time.RFC3339Nano)
		}
		fmt.Fprintf(&b, "%s=%#v ", f.Name, x)
	}
	return b.String()
}

// version is a state of a sample.
type version struct {
	id      uuid.UUID
	version int64
}

// past is a record as it was.
type past struct {
	node    *sample
	friends map[uuid.UUID]bool
}

// recorder writes samples and remembers each state that it has committed.
type recorder struct {
	*sampler
	pool  *pgxpool.Pool
	store *Store
	was   map[version]past
}

func (r *recorder) remember(t *testing.T) (now map[uuid.UUID]past) {
	t.Helper()
	now = map[uuid.UUID]past{}
	nodes, err := r.store.load(t.Context(), r.ids)
	require.NoError(t, err)
	for id, n := range nodes {
		now[id] = past{n.(*sample), map[uuid.UUID]bool{}}
	}
	rows, err := r.pool.Query(t.Context(), `SELECT sample_id, friend_id FROM sample_friends`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id, friend uuid.UUID
		require.NoError(t, rows.Scan(&id, &friend))
		now[id].friends[friend] = true
	}
	require.NoError(t, rows.Err())
	for id, p := range now {
		r.was[version{id, int64(p.node.Version)}] = p
	}
	for i, id := range r.ids {
		if _, gone := r.was[version{id, 1}]; gone && now[id].node == nil { // nor does it come back: its versions would begin anew
			r.ids[i] = r.id()
		}
	}
	return now
}

// statement makes a write up.
func (r *recorder) statement() (sql string, args []any) {
	id := one(r.sampler, r.ids)
	args = []any{id}
	switch n := r.IntN(20); {
	case n < 4:
		return `INSERT INTO samples (id) SELECT $1 WHERE NOT EXISTS (SELECT FROM changes WHERE id = $1)`, args
	case n < 5:
		return `DELETE FROM samples WHERE id = $1`, args
	case n < 6:
		return `UPDATE samples SET version = 7 WHERE id = $1`, args
	case n < 8:
		return `INSERT INTO sample_friends SELECT id, $2 FROM samples WHERE id = $1 ON CONFLICT DO NOTHING`,
			append(args, one(r.sampler, r.ids))
	case n < 9:
		return `DELETE FROM sample_friends WHERE sample_id = $1 AND friend_id < $2`, append(args, one(r.sampler, r.ids))
	}
	values := map[string]func() any{
		"title": func() any { return one(r.sampler, oddTexts) },
		"label": func() any { return some(r.sampler, append(oddTexts, "\x01\u2028")) },
		"rank":  func() any { return some(r.sampler, oddInts) },
		"score": func() any { return some(r.sampler, slices.Delete(slices.Clone(oddFloats), 1, 2)) }, // jsonb has no -0
		"done":  func() any { return some(r.sampler, []bool{true, false}) },
		"at": func() any {
			return some(r.sampler, []string{oddTimes[0], oddTimes[1], oddTimes[3], "1890-06-01 BC", "0401-02-29T23:59:59.999999Z BC",
				"12024-02-29T00:00:00.5Z"})
		},
		"mood": func() any { return some(r.sampler, sampleMoods) },
		"tags": func() any { return some(r.sampler, []string{`[]`, `["a", "\"", "ü"]`, `null`}) },
		"detail": func() any {
			return some(r.sampler, []string{`{}`, `{"a": 1.50, "a": [null, {"b": "\u00e4"}], "c": 1e3}`, `{"x": "\u0000"}`})
		},
		"owner":  func() any { return some(r.sampler, r.ids) },
		"home":   func() any { return some(r.sampler, r.ids) },
		"hush":   func() any { return some(r.sampler, oddTexts) },
		"secret": func() any { return some(r.sampler, oddTexts) },
	}
	casts := map[string]string{"at": "::text::timestamptz", "tags": "::text::jsonb", "detail": "::text::json"}
	names := slices.Sorted(maps.Keys(values))
	r.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
	var set []string
	for _, name := range names[:1+r.IntN(4)] {
		args = append(args, values[name]())
		set = append(set, fmt.Sprintf("%s = $%d%s", name, len(args), casts[name]))
	}
	return `UPDATE samples SET ` + strings.Join(set, ", ") + ` WHERE id = $1`, args
}

// From a record and the log, each earlier state of it is what it was.
func TestImagesAreWhatWas(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			for _, sql := range []string{
				sampleTable, `CREATE TABLE sample_friends (sample_id uuid REFERENCES samples ON DELETE CASCADE, friend_id uuid,
					PRIMARY KEY (sample_id, friend_id))`,
				`SELECT changelog_track('samples', 'sample', '{secret}')`,
				`SELECT changelog_track_join('sample_friends', 'sample', 'samples', 'sample_id', 'friend_id', 'friends')`,
			} {
				_, err := pool.Exec(t.Context(), sql)
				require.NoError(t, err)
			}
			r := &recorder{newSampler(seed), pool, newSamples(t, pool), map[version]past{}}
			var now map[uuid.UUID]past
			for range 200 {
				err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					zone := one(r.sampler, []string{"UTC", "Asia/Kolkata", "America/St_Johns", "Europe/Amsterdam"})
					if _, err := tx.Exec(t.Context(), `SET LOCAL TimeZone = '`+zone+`'`); err != nil {
						return err
					}
					for range one(r.sampler, []int{1, 1, 1, 2, 4}) {
						sql, args := r.statement()
						if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
							return fmt.Errorf("%s %v: %w", sql, args, err)
						}
					}
					return nil
				})
				require.NoError(t, err)
				now = r.remember(t)
			}

			rows, err := pool.Query(t.Context(), `SELECT id, version, op::text, fields, old FROM changes
				WHERE entity = 'sample' ORDER BY seq DESC`)
			require.NoError(t, err)
			defer rows.Close()
			ops, linked := map[changelog.Op]int{}, map[changelog.Op]int{}
			for rows.Next() {
				var c changelog.Change
				var op string
				require.NoError(t, rows.Scan(&c.ID, &c.Version, &op, &c.Fields, (*[]byte)(&c.Old)))
				c.Op = changelog.Op(op[0])
				after, there := now[c.ID]
				require.Equal(t, c.Op != changelog.OpDelete, there)
				var n Node
				if there {
					n = after.node
				}
				as := fmt.Sprintf("seed %d: %s %s %d %v %s", seed, op, c.ID, c.Version, c.Fields, c.Old)
				text := ""
				if there {
					text = dump(r.store, n)
				}
				was, l, err := r.store.before(n, c)
				require.NoError(t, err, as)
				if there {
					require.Equal(t, text, dump(r.store, n), "it is not changed: %s", as)
				}
				ops[c.Op]++
				linked[c.Op] += len(l)
				if c.Op == changelog.OpInsert {
					require.Nil(t, was, as)
					require.Empty(t, l, as)
					delete(now, c.ID)
					continue
				}
				friends := maps.Clone(after.friends)
				if friends == nil {
					friends = map[uuid.UUID]bool{}
				}
				for edge, change := range l {
					require.Equal(t, "friends", edge)
					for _, id := range change.Added {
						delete(friends, id)
					}
					for _, id := range change.Removed {
						friends[id] = true
					}
				}
				before := past{was.(*sample), friends}
				if want, known := r.was[version{c.ID, c.Version - 1}]; known {
					if c.Op == changelog.OpUpdate { // which the log does not have
						require.Equal(t, after.node.UpdatedAt, before.node.UpdatedAt, as)
						before.node.UpdatedAt = want.node.UpdatedAt
					}
					require.Equal(t, dump(r.store, want.node), dump(r.store, before.node), as)
					require.Equal(t, want.node.At, before.node.At, "in the same location: %s", as)
					require.Equal(t, want.friends, before.friends, as)
				} else {
					require.Equal(t, c.Version-1, int64(before.node.Version), as)
				}
				now[c.ID] = before
			}
			require.NoError(t, rows.Err())
			require.Empty(t, now)
			t.Logf("seed %d: %v, with links %v", seed, ops, linked)
			for _, op := range []changelog.Op{changelog.OpInsert, changelog.OpUpdate, changelog.OpDelete} {
				require.Greater(t, ops[op], 5)
			}
			require.NotZero(t, linked[changelog.OpUpdate])
			require.NotZero(t, linked[changelog.OpDelete])
		})
	}
}

func TestImageErrors(t *testing.T) {
	t.Parallel()
	s := newSamples(t, dbtest.New(t))
	for old, want := range map[string]string{
		``: "unexpected end", `{"at": "infinity"}`: "column at: is not a time", `{"at": 1}`: "column at",
		`{"rank": "x"}`: "column rank", `{"score": "x"}`: "column score",
		`{"detail": "{"}`: "column detail", `{"friends": {"added": ["x"]}}`: "edge friends", `{"home": "x"}`: "column home",
	} {
		_, _, err := s.before(&sample{Version: 2}, changelog.Change{Op: changelog.OpUpdate, Version: 2, Old: json.RawMessage(old)})
		require.ErrorContains(t, err, want, old)
	}
	_, _, err := s.before(&sample{Version: 3}, changelog.Change{Op: changelog.OpUpdate, Version: 2, Old: json.RawMessage(`{}`)})
	require.ErrorContains(t, err, "made version 2, this is 3")
	_, _, err = s.before(nil, changelog.Change{Op: changelog.OpResync})
	require.ErrorContains(t, err, "no one record's")
	n, l, err := s.before(nil, changelog.Change{Op: changelog.OpDelete, Version: 9,
		Old: json.RawMessage(`{"version": 8, "unknown": 1, "secret": "x", "hush": "x", "owner_id": {}}`)})
	require.NoError(t, err)
	require.Nil(t, l)
	require.Equal(t, &sample{Version: 8}, n)
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	var want []time.Time
	for range 500 {
		want = append(want, time.UnixMicro(r.Int64N(1<<58)-1<<57))
	}
	rows, err := dbtest.New(t).Query(t.Context(), `SELECT to_jsonb(v) #>> '{}'
		FROM unnest($1::timestamptz[]) WITH ORDINALITY u (v, n) ORDER BY n`, want)
	require.NoError(t, err)
	defer rows.Close()
	for _, want := range want {
		require.True(t, rows.Next(), rows.Err())
		var text string
		require.NoError(t, rows.Scan(&text))
		got, err := parseTime(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	require.False(t, rows.Next())
	require.NoError(t, rows.Err())
}

func BenchmarkImage(b *testing.B) {
	s := newSamples(b, dbtest.New(b))
	n := &sample{ID: uuid.New(), Version: 2, Label: new("new")}
	c := changelog.Change{Op: changelog.OpUpdate, Version: 2, Fields: []string{"label"},
		Old: json.RawMessage(`{"at": "2026-01-01T00:00:00.5+00:00", "label": "old"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.before(n, c); err != nil {
			b.Fatal(err)
		}
	}
}
