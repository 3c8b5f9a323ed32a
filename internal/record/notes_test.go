package record_test

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/entpgx"
	"godstack/internal/record"
)

// mood is an enum.
type mood string

// note has a column of each kind that can be null, which no generated entity has yet.
type note struct {
	ID      uuid.UUID
	Version int
	Label   *string
	Rank    *int
	Score   *float64
	Done    *bool
	At      *time.Time
	Mood    *mood
	Ref     *uuid.UUID
}

func (*note) ScanTargets([]string) ([]any, error) {
	return []any{new(uuid.UUID), new(int), new(*string), new(*int), new(*float64), new(*bool), new(*time.Time), new(*string), new(*uuid.UUID)}, nil
}

func (n *note) AssignRow(_ []string, v []any) error {
	*n = note{*v[0].(*uuid.UUID), *v[1].(*int), *v[2].(**string), *v[3].(**int), *v[4].(**float64), *v[5].(**bool),
		*v[6].(**time.Time), (*mood)(*v[7].(**string)), *v[8].(**uuid.UUID)}
	return nil
}

// notes is a store over a table of notes. Each row is given as SQL values: label, rank, score, done, at, mood, ref.
func (b *bundle) notes(t *testing.T, rows ...string) *record.Store {
	t.Helper()
	b.sql(t, `CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), version bigint NOT NULL DEFAULT 1,
		label text, rank bigint, score double precision, done boolean, at timestamptz, mood text, ref uuid)`)
	if len(rows) > 0 {
		b.sql(t, `INSERT INTO notes (label, rank, score, done, at, mood, ref) VALUES (`+strings.Join(rows, `), (`)+`)`)
	}
	const use = record.InType | record.InFilter
	e := &record.Entity{Name: "Note", Prefix: "note", List: "notes", Table: "notes", Fields: []record.Field{
		{Name: "id", Column: "id", Go: "ID", Kind: record.UUID, Use: use},
		{Name: "version", Column: "version", Go: "Version", Kind: record.Int, Order: "VERSION", Use: use},
		{Name: "label", Column: "label", Go: "Label", Kind: record.String, Nullable: true, Order: "LABEL", Use: use},
		{Name: "rank", Column: "rank", Go: "Rank", Kind: record.Int, Nullable: true, Order: "RANK", Use: use},
		{Name: "score", Column: "score", Go: "Score", Kind: record.Float, Nullable: true, Order: "SCORE", Use: use},
		{Name: "done", Column: "done", Go: "Done", Kind: record.Bool, Nullable: true, Order: "DONE", Use: use},
		{Name: "at", Column: "at", Go: "At", Kind: record.Time, Nullable: true, Order: "AT", Use: use},
		{Name: "mood", Column: "mood", Go: "Mood", Kind: record.Enum, Type: reflect.TypeFor[mood](), Nullable: true, Order: "MOOD", Use: use},
		{Name: "refID", Column: "ref", Go: "Ref", Kind: record.UUID, Nullable: true, Use: record.InFilter},
	}, Edges: []record.Edge{{Name: "ref", To: "Note", Field: "refID"}}}
	s := record.NewStore(e, record.Model{New: func() record.Node { return &note{} }})
	_, err := record.NewEngine(entpgx.Open(b.Pool), []*record.Store{s}, &record.Config{Unrestricted: true})
	require.NoError(t, err)
	return s
}

// labels are those of a page's records.
func labels(c *record.Connection) []string {
	s := []string{}
	for _, n := range c.Nodes {
		s = append(s, *n.(*note).Label)
	}
	return s
}

func TestOperators(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const ref = "0190a5c0-0000-7000-8000-000000000001"
	s := b.notes(t,
		`'One', 1, 1.5, true, '2026-01-01T00:00:00Z', 'happy', '`+ref+`'`,
		`'two', 2, -2.5, false, '2026-01-01T00:00:00.000001Z', 'sad', NULL`,
		`'three_%\', 3, 1e300, NULL, '2026-06-01T00:00:00Z', NULL, NULL`,
		`'none', NULL, NULL, NULL, NULL, NULL, NULL`,
	)
	list := func(v ...any) any { return v }
	for _, c := range []struct {
		key   string
		value any
		want  string
	}{
		{"label", "One", "One"}, {"labelNEQ", "One", "none three_%\\ two"}, {"labelIn", list("One", "two", "x"), "One two"},
		{"labelNotIn", list("One", "two"), "none three_%\\"}, {"labelGT", "none", "three_%\\ two"}, {"labelGTE", "none", "none three_%\\ two"},
		{"labelLT", "none", "One"}, {"labelLTE", "none", "One none"},
		{"labelContains", "e_", "three_%\\"}, {"labelContains", "n", "One none"}, {"labelContains", `%\`, "three_%\\"}, {"labelContains", "", "One none three_%\\ two"},
		{"labelHasPrefix", "t", "three_%\\ two"}, {"labelHasPrefix", "_", ""}, {"labelHasSuffix", "e", "One none"}, {"labelHasSuffix", `\`, "three_%\\"},
		{"labelEqualFold", "ONE", "One"}, {"labelEqualFold", "O%", ""}, {"labelContainsFold", "ONE", "One none"}, {"labelContainsFold", "E_%", "three_%\\"},
		{"labelIsNil", true, ""}, {"labelIsNil", false, "One none three_%\\ two"},
		{"rank", 1, "One"}, {"rankNEQ", 1, "three_%\\ two"}, {"rankIn", list(1, 3, int64(math.MaxInt64)), "One three_%\\"}, {"rankNotIn", list(1), "three_%\\ two"},
		{"rankGT", 1, "three_%\\ two"}, {"rankGTE", 2, "three_%\\ two"}, {"rankLT", 2, "One"}, {"rankLTE", 2, "One two"},
		{"rankIsNil", true, "none"}, {"rankIsNil", false, "One three_%\\ two"}, {"rankNotNil", true, "One three_%\\ two"}, {"rankNotNil", false, "none"},
		{"score", 1.5, "One"}, {"score", -2.5, "two"}, {"scoreIn", list(1.5, 1e300), "One three_%\\"}, {"scoreGT", 1, "One three_%\\"}, {"scoreIsNil", true, "none"},
		{"done", true, "One"}, {"doneNEQ", true, "two"}, {"doneIn", list(true, false), "One two"}, {"doneIsNil", true, "none three_%\\"},
		{"at", "2026-01-01T00:00:00Z", "One"}, {"at", "2026-01-01T01:00:00+01:00", "One"}, {"atGT", "2026-01-01T00:00:00Z", "three_%\\ two"},
		{"atIn", list("2026-01-01T00:00:00.000001Z"), "two"}, {"atLTE", "2026-01-01T00:00:00.000001Z", "One two"}, {"atIsNil", true, "none"},
		{"mood", "sad", "two"}, {"moodNEQ", "sad", "One"}, {"moodIn", list("sad", "happy"), "One two"}, {"moodNotIn", list("sad"), "One"}, {"moodIsNil", true, "none three_%\\"},
		{"refID", ref, "One"}, {"refIDIn", list(ref), "One"}, {"refIDIsNil", true, "none three_%\\ two"}, {"refIDNotNil", true, "One"},
	} {
		page, err := s.Find(t.Context(), record.Page{Where: record.Input{c.key: c.value}, OrderBy: []*record.Order{{Field: "LABEL"}}})
		require.NoError(t, err, "%s %v", c.key, c.value)
		got := labels(page)
		slices.Sort(got)
		require.Equal(t, c.want, strings.Join(got, " "), "%s %v", c.key, c.value)
		n, err := s.Count(t.Context(), record.Input{c.key: c.value})
		require.NoError(t, err)
		require.Len(t, got, n)
	}
	for _, key := range []string{"nope", "version_", "labelLike", "; DROP TABLE notes"} {
		_, err := s.Find(t.Context(), record.Page{Where: record.Input{key: "x"}})
		var e *record.Error
		require.ErrorAs(t, err, &e, key)
		require.Equal(t, record.BadUserInput, e.Code, key)
	}
}

// Columns that can be null are ordered as Postgres does, and pages add up, also where values are extreme.
func TestPagesAddUpWithNulls(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.notes(t)
	b.sql(t, `INSERT INTO notes (label, rank, score, done, at, mood) SELECT 'n' || n,
		(ARRAY[NULL, 1, 2, 9223372036854775807, -9223372036854775808])[n % 5 + 1],
		(ARRAY[NULL, 'NaN', 'Infinity', '-Infinity', 0.1, 1e-300])[n % 6 + 1]::double precision,
		(ARRAY[NULL, true, false])[n % 3 + 1],
		(ARRAY[NULL, '12026-01-01T00:00:00.000001Z', '0044-03-15 BC', '2026-01-01T00:00:00.123456Z'])[n % 4 + 1]::timestamptz,
		(ARRAY[NULL, 'happy', 'sad'])[n % 3 + 1] FROM generate_series(1, 60) n`)
	b.sql(t, `UPDATE notes SET rank = 1, score = NULL, done = NULL, at = NULL, mood = NULL WHERE label IN ('n1', 'n2', 'n3', 'n4')`)
	fields := []string{"RANK", "SCORE", "DONE", "AT", "MOOD", "LABEL", "VERSION"}
	for i, f := range fields {
		for j, g := range fields {
			order := []*record.Order{{Field: f, Desc: (i+j)%2 == 0}, {Field: g, Desc: i%2 == 0}}
			sql := ""
			for k, o := range order {
				if k > 0 && f == g {
					order = order[:1]
					break
				}
				sql += strings.ToLower(o.Field)
				if o.Desc {
					sql += " DESC"
				}
				sql += ", "
			}
			sql += "id"
			if order[len(order)-1].Desc {
				sql += " DESC"
			}
			want := one[[]string](t, b, `SELECT array_agg(label ORDER BY `+sql+`) FROM notes`)
			size := 7 + i
			for _, backward := range []bool{false, true} {
				var got []string
				p := record.Page{OrderBy: order}
				if backward {
					p.Last = &size
				} else {
					p.First = &size
				}
				for more := true; more; {
					c, err := s.Find(context.Background(), p)
					require.NoError(t, err, sql)
					if backward {
						got = append(labels(c), got...)
						first := c.Cursor(0)
						more, p.Before = c.HasPreviousPage, &first
					} else {
						got = append(got, labels(c)...)
						last := c.Cursor(len(c.Nodes) - 1)
						more, p.After = c.HasNextPage, &last
					}
					require.LessOrEqual(t, len(got), 60, sql)
				}
				require.Equal(t, want, got, fmt.Sprint(sql, " ", backward))
			}
		}
	}
}
