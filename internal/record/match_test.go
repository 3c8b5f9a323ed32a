package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
	"godstack/internal/viewer"
)

type sampleMood string

// sample is a record with fields of each kind.
type sample struct {
	ID        uuid.UUID      `column:"id"`
	Version   int            `column:"version"`
	UpdatedAt time.Time      `column:"updated_at"`
	Title     string         `column:"title"`
	Label     *string        `column:"label"`
	Rank      *int           `column:"rank"`
	Score     *float64       `column:"score"`
	Done      *bool          `column:"done"`
	At        *time.Time     `column:"at"`
	Mood      *sampleMood    `column:"mood"`
	Tags      []string       `column:"tags"`
	Detail    map[string]any `column:"detail"`
	Owner     *uuid.UUID     `column:"owner"`
	Home      *uuid.UUID     `column:"home"`
	Boss      *uuid.UUID     `column:"boss"`
	Hush      *string        `column:"hush"`
}

const sampleTable = `CREATE TABLE samples (id uuid PRIMARY KEY, version bigint NOT NULL DEFAULT 1,
	updated_at timestamptz NOT NULL DEFAULT now(), title varchar NOT NULL DEFAULT '', label text, rank bigint, score double precision,
	done boolean, at timestamptz, mood varchar, tags jsonb, detail json, owner uuid, home uuid, boss uuid, hush text, secret text)`

func (*sample) ScanTargets(columns []string) ([]any, error) {
	targets := make([]any, len(columns))
	for i, c := range columns {
		f := sampleFields[c]
		if k := f.Type.Kind(); k == reflect.Map || k == reflect.Slice {
			targets[i] = new([]byte)
		} else {
			targets[i] = reflect.New(f.Type).Interface()
		}
	}
	return targets, nil
}

func (n *sample) AssignRow(columns []string, targets []any) error {
	v := reflect.ValueOf(n).Elem()
	for i, c := range columns {
		to := v.FieldByIndex(sampleFields[c].Index)
		if b, ok := targets[i].(*[]byte); !ok {
			to.Set(reflect.ValueOf(targets[i]).Elem())
		} else if len(*b) > 0 {
			if err := json.Unmarshal(*b, to.Addr().Interface()); err != nil {
				return err
			}
		}
	}
	return nil
}

var sampleFields = func() map[string]reflect.StructField {
	m := map[string]reflect.StructField{}
	for f := range reflect.TypeFor[sample]().Fields() {
		m[f.Tag.Get("column")] = f
	}
	return m
}()

// newSamples returns a store of samples: some fields are not for all, and neither is what owner (but to those who are signed in) and
// boss lead to.
func newSamples(t testing.TB, pool *pgxpool.Pool) *Store {
	t.Helper()
	const use = InType | InFilter
	mine := new(entity.Any(entity.Self(), entity.Is("owner"), entity.Role(viewer.Moderator)))
	samples := NewStore(&Entity{
		Name: "Sample", Prefix: "sample", List: "samples", Table: "samples", Access: entity.Access{Read: entity.Anyone()},
		Fields: []Field{
			{Name: "id", Column: "id", Go: "ID", Kind: UUID, Use: use},
			{Name: "version", Column: "version", Go: "Version", Kind: Int, Use: use},
			{Name: "updatedAt", Column: "updated_at", Go: "UpdatedAt", Kind: Time, Use: use},
			{Name: "title", Column: "title", Go: "Title", Kind: String, Use: use, ReadableBy: mine},
			{Name: "label", Column: "label", Go: "Label", Kind: String, Nullable: true, Use: use},
			{Name: "rank", Column: "rank", Go: "Rank", Kind: Int, Nullable: true, Use: use, ReadableBy: mine},
			{Name: "score", Column: "score", Go: "Score", Kind: Float, Nullable: true, Use: use},
			{Name: "done", Column: "done", Go: "Done", Kind: Bool, Nullable: true, Use: use, ReadableBy: new(entity.SignedIn())},
			{Name: "at", Column: "at", Go: "At", Kind: Time, Nullable: true, Use: use},
			{Name: "mood", Column: "mood", Go: "Mood", Kind: Enum, Type: reflect.TypeFor[sampleMood](), Nullable: true,
				Use: use},
			{Name: "tags", Column: "tags", Go: "Tags", Kind: JSON, Type: reflect.TypeFor[[]string](), Nullable: true, Use: use},
			{Name: "detail", Column: "detail", Go: "Detail", Kind: JSON, Type: reflect.TypeFor[map[string]any](), Nullable: true,
				Use: InType},
			{Name: "ownerID", Column: "owner", Go: "Owner", Kind: UUID, Nullable: true, Use: InFilter},
			{Name: "homeID", Column: "home", Go: "Home", Kind: UUID, Nullable: true, Use: InFilter},
			{Name: "bossID", Column: "boss", Go: "Boss", Kind: UUID, Nullable: true, Use: InFilter},
			{Name: "hush", Column: "hush", Go: "Hush", Kind: String},
		},
		Edges: []Edge{
			{Name: "owner", To: "Member", Field: "ownerID"},
			{Name: "home", To: "Sample", Field: "homeID"},
			{Name: "boss", To: "Boss", Field: "bossID"},
			{Name: "friends", To: "Sample", Through: "sample_friends", From: "sample_id", Ref: "friend_id"},
		},
	}, Model{New: func() Node { return &sample{} }})
	other := func(name string, read entity.Rule) *Store {
		e := &Entity{Name: name, Prefix: strings.ToLower(name), Table: "samples", Access: entity.Access{Read: read}}
		e.Fields = []Field{
			{Name: "id", Column: "id", Go: "ID", Kind: UUID}, {Name: "version", Column: "version", Go: "Version", Kind: Int},
		}
		return NewStore(e, Model{New: func() Node { return &sample{} }})
	}
	_, err := NewEngine(entpgx.Open(pool), []*Store{samples, other("Member", entity.SignedIn()),
		other("Boss", entity.All(entity.SignedIn(), entity.Any(entity.Self(), entity.Role(viewer.Admin))))}, nil)
	require.NoError(t, err)
	return samples
}

var (
	long     = strings.Repeat("lOng ÄÖÜ ", 40)
	oddTexts = []string{"", "a", "A", "b", "ab", "%", "_", `\`, `a%b_c\d`, `\%`, "Straße",
		"STRASSE", "İstanbul", "istanbul", "ıI", "ΑΣ", "ας", "ασ",
		"é", "É", "e\u0301", "\u212a", "k", "ǅ", "ǆ", "日本",
		"😀", "\n", "'", `"`, " a ", long}
	oddInts   = []int{0, 1, -1, 2, math.MaxInt64, math.MinInt64, 1 << 53, 1<<53 + 1}
	oddFloats = []float64{0, math.Copysign(0, -1), 1, 0.1, 1e300, 5e-324, -2.5, math.NaN(), math.Inf(1), math.Inf(-1)}
	oddTimes  = []string{"2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z", "2025-12-31T23:59:59.999999999Z",
		"1900-01-01T12:00:00.5Z", "0000-03-01T00:00:00Z", "9999-12-31T23:59:59Z"}
	sampleMoods = []string{"happy", "sad"}
)

// sampler makes samples and filters up.
type sampler struct {
	*rand.Rand
	ids []uuid.UUID // that there are
}

func newSampler(seed uint64) *sampler {
	s := &sampler{Rand: rand.New(rand.NewPCG(seed, 2))}
	for range 8 {
		s.ids = append(s.ids, s.id())
	}
	return s
}

func (s *sampler) id() (id uuid.UUID) {
	for i := range id {
		id[i] = byte(s.IntN(256))
	}
	return id
}

func one[T any](s *sampler, of []T) T { return of[s.IntN(len(of))] }

// some returns one of them, or nil.
func some[T any](s *sampler, of []T) *T {
	if s.IntN(4) == 0 {
		return nil
	}
	return new(one(s, of))
}

func insertSamples(t testing.TB, pool *pgxpool.Pool, s *sampler, n int) {
	t.Helper()
	for i := range n {
		id := s.id()
		if i < len(s.ids) {
			id = s.ids[i]
		}
		times := []string{oddTimes[0], oddTimes[1], oddTimes[3], "0044-03-15 BC", "12026-01-01T00:00:00.5Z"}
		_, err := pool.Exec(t.Context(), `INSERT INTO samples (id, version, title, label, rank, score, done, at, mood, tags,
			owner, home, boss)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::timestamptz, $9, $10, $11, $12, $13)`, id, 1+s.IntN(3),
			one(s, oddTexts), some(s, oddTexts), some(s, oddInts), some(s, oddFloats), some(s, []bool{true, false}), some(s, times),
			some(s, sampleMoods), some(s, []string{`[]`, `null`}), some(s, s.ids), some(s, s.ids), some(s, s.ids))
		require.NoError(t, err)
	}
}

// where makes a filter up.
func (s *sampler) where(e *Entity, depth int) map[string]any {
	in := map[string]any{}
	for range one(s, []int{0, 1, 1, 1, 1, 2, 2, 3}) {
		if depth > 0 && s.IntN(5) < 2 {
			word := one(s, []string{"and", "or", "or", "not"})
			var list []any
			for range s.IntN(4) {
				list = append(list, s.where(e, depth-1))
			}
			switch {
			case s.IntN(10) == 0:
				in[word] = nil
			case word == "not" || s.IntN(10) == 0:
				in[word] = s.where(e, depth-1)
			default:
				in[word] = list
			}
			continue
		}
		f := &e.Fields[s.IntN(len(e.Fields)-3)] // the last three: see below
		if s.IntN(15) == 0 {
			f = e.fields["bossID"]
		}
		if f.Kind == JSON || f.Column == "updated_at" && s.IntN(4) > 0 {
			f = e.fields["label"]
		}
		ops := []op{opEQ, opNEQ, opIn, opNotIn, opIsNil, opNotNil}
		switch {
		case f.Kind == String:
			ops = append(ops, opContains, opHasPrefix, opHasSuffix, opEqualFold, opContainsFold, opContainsFold)
			if s.IntN(20) == 0 {
				ops = []op{opGT, opLTE}
			}
		case f.Kind != Enum && f.Kind != Bool:
			ops = append(ops, opGT, opGTE, opLT, opLTE)
		}
		o := one(s, ops)
		in[f.Name+suffixes[o]] = s.operand(f, o)
		if s.IntN(100) == 0 {
			in["hasFriends"] = true
		}
	}
	return in
}

func (s *sampler) operand(f *Field, o op) any {
	switch {
	case s.IntN(20) == 0:
		return nil
	case o == opIsNil || o == opNotNil:
		return s.IntN(2) == 0
	case (o == opIn || o == opNotIn) && s.IntN(10) > 0:
		list := []any{}
		for range s.IntN(5) {
			list = append(list, s.value(f))
		}
		return list
	}
	return s.value(f)
}

// value is one as GraphQL gives it.
func (s *sampler) value(f *Field) any {
	switch f.Kind {
	case Int:
		if f.Name == "version" {
			return 1 + s.IntN(3)
		}
		return one(s, []any{one(s, oddInts), json.Number(fmt.Sprint(one(s, oddInts)))})
	case Float:
		return one(s, []any{one(s, oddFloats), one(s, oddFloats), s.IntN(3), "NaN"})
	case Bool:
		return s.IntN(2) == 0
	case Time:
		return one(s, append([]string{"2026-01-01T01:00:00+01:00"}, oddTimes...))
	case UUID:
		return one(s, []string{one(s, s.ids).String(), f.of.globalID(one(s, s.ids)).String()})
	case Enum:
		return one(s, sampleMoods)
	}
	return one(s, oddTexts)
}

// shuffled is the same filter in another order.
func (s *sampler) shuffled(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, k := range s.Perm(len(v)) {
			out[i] = s.shuffled(v[k])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for key := range v {
			out[key] = s.shuffled(v[key])
		}
		return out
	}
	return v
}

// unfollowable reports whether a filter has a condition that is not for memory.
func unfollowable(e *Entity, a asker, v any) bool {
	in, ok := v.(map[string]any)
	if !ok {
		list, _ := v.([]any)
		return slices.ContainsFunc(list, func(v any) bool { return unfollowable(e, a, v) })
	}
	for key, raw := range in {
		c := e.filters[key]
		switch {
		case raw == nil:
		case key == "and" || key == "or" || key == "not":
			if unfollowable(e, a, raw) {
				return true
			}
		case key == "hasFriends", c.field.Name == "updatedAt", c.field.Kind == String && c.op >= opGT && c.op <= opLTE,
			c.field.Name == "bossID" && a.signedIn && a.Role != viewer.Admin:
			return true
		}
	}
	return false
}

// In memory a filter holds where the SQL of the same filter does, whoever asks. The subtest's name is the seed.
func TestMatchHoldsAsTheDatabaseSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			pool, s := dbtest.New(t), newSampler(seed)
			_, err := pool.Exec(t.Context(), sampleTable)
			require.NoError(t, err)
			store := newSamples(t, pool)
			insertSamples(t, pool, s, 40)
			var ids []uuid.UUID
			require.NoError(t, pool.QueryRow(t.Context(), `SELECT array_agg(id ORDER BY id) FROM samples`).Scan(&ids))
			nodes, err := store.load(t.Context(), ids)
			require.NoError(t, err)
			filters := make([]Input, 400)
			for i := range filters {
				filters[i] = s.where(store.Entity, 3)
			}
			shared := map[string][]bool{} // what filters hold for, by key, of those that are not personal
			followed, yes, all := 0, 0, 0
			askers := []asker{{}}
			for i, role := range []string{viewer.User, viewer.User, viewer.Moderator, viewer.Admin} {
				askers = append(askers, asker{Viewer: viewer.Viewer{ID: s.ids[i], Role: role}, signedIn: true})
			}
			for _, a := range askers {
				var matches []*match
				var of []Input
				own := map[string][]bool{}
				q := &query{who: a}
				q.write("SELECT t.id, ARRAY[")
				for _, in := range filters {
					m, err := store.compile(a, in)
					if unfollowable(store.Entity, a, map[string]any(in)) {
						require.ErrorContains(t, err, "cannot be followed", "%v as %v", in, a)
						require.Equal(t, BadUserInput, codeOf(err))
						continue
					}
					require.NoError(t, err, "%v as %v", in, a)
					again, err := store.compile(a, s.shuffled(map[string]any(in)).(map[string]any))
					require.NoError(t, err)
					require.Equal(t, m.key(), again.key())
					if len(matches) > 0 {
						q.write(", ")
					}
					q.write("(")
					q.count = 0
					require.NoError(t, q.where(store.Entity, "t", in))
					q.write(") IS TRUE")
					matches, of = append(matches, m), append(of, in)
				}
				followed += len(matches)
				q.write("] FROM samples t ORDER BY t.id")
				rows, err := pool.Query(t.Context(), q.text.String(), q.args...)
				require.NoError(t, err)
				defer rows.Close()
				held := make([][]bool, len(matches))
				for rows.Next() {
					var id uuid.UUID
					var want []bool
					require.NoError(t, rows.Scan(&id, &want))
					n := nodes[id]
					for i, m := range matches {
						got := m.holds(n)
						if got != want[i] {
							require.Fail(t, "not as the database says", "%v: %v (%s) as %v of %s", got, of[i], m.key(), a, dump(store, n))
						}
						held[i] = append(held[i], got)
						all++
						if !got {
							continue
						}
						yes++
						for k := range store.Fields {
							f := &store.Fields[k]
							if id, ok := m.pinned(f); ok {
								require.Equal(t, id, f.value(reflect.ValueOf(n)), "%v", of[i])
							}
						}
					}
				}
				require.NoError(t, rows.Err())
				for i, m := range matches {
					same := shared
					if m.personal() {
						same = own
					}
					if same[m.key()] == nil {
						same[m.key()] = held[i]
					}
					require.Equal(t, same[m.key()], held[i], "%v and another with the key %s", of[i], m.key())
				}
			}
			t.Logf("seed %d: %d filters followed, %d of %d decisions are yes", seed, followed, yes, all)
			require.Greater(t, followed, 1000)
			require.Greater(t, yes, all/5)
			require.Less(t, yes, all*4/5)
		})
	}
}

// lower() of the database is Unicode's simple mapping, by which texts are folded in memory.
func TestMatchFoldsAsTheDatabase(t *testing.T) {
	t.Parallel()
	rows, err := dbtest.New(t).Query(t.Context(), `SELECT n, lower(chr(n)) FROM generate_series(1, x'10ffff'::int) n
		WHERE n NOT BETWEEN x'd800'::int AND x'dfff'::int AND lower(chr(n)) <> chr(n)`)
	require.NoError(t, err)
	defer rows.Close()
	got := map[rune]string{}
	for rows.Next() {
		var r rune
		var s string
		require.NoError(t, rows.Scan(&r, &s))
		got[r] = s
	}
	require.NoError(t, rows.Err())
	want := map[rune]string{}
	for r := range rune(unicode.MaxRune + 1) {
		if lower := unicode.ToLower(r); lower != r {
			want[r] = string(lower)
		}
	}
	require.Equal(t, want, got)
}

// What is wrong with a filter is said in the same words as for lists.
func TestMatchErrors(t *testing.T) {
	t.Parallel()
	e := newSamples(t, dbtest.New(t)).Entity
	many := make([]any, MaxRefs+1)
	for i := range many {
		many[i] = "x"
	}
	deep := map[string]any{}
	for range maxConditions {
		deep = map[string]any{"not": deep}
	}
	for _, in := range []Input{
		{"nope": 1}, {"and": 1, "nope": 1}, {"label": map[string]any{}}, {"label": "a\x00"}, {"label": "\xff"},
		{"labelIn": []any{"a", "\x00"}}, {"labelContains": "\x00"},
		{"rank": "x"}, {"rank": 1.5}, {"rankIn": []any{1, true}}, {"score": "x"}, {"at": ""},
		{"at": "yesterday"}, {"atGT": 1},
		{"id": "x"}, {"id": "member_01h455vb4pex5vsknk084sn02q"},
		{"ownerIDIn": []any{"sample_01h455vb4pex5vsknk084sn02q"}}, {"done": []any{}}, {"labelIsNil": 1.5},
		{"labelIn": many}, {"labelNotIn": many}, {"or": []any{map[string]any{"not": map[string]any{"rank": "x"}}}}, deep,
		{"or": slices.Repeat([]any{map[string]any{"rank": 1}}, maxConditions)},
	} {
		want := (&query{}).where(e, "t", in)
		require.Error(t, want, "%v", in)
		_, err := e.compile(asker{}, in)
		require.Equal(t, want, err, "%v", in)
	}
	user := asker{Viewer: viewer.Viewer{ID: uuid.New(), Role: viewer.User}, signedIn: true}
	for key, value := range map[string]any{
		"hasFriends": true, "hasOwner": false, "hasHomeWith": []any{}, "labelGT": "a", "labelLTE": "a", "moodLT": "sad", "doneGT": true,
		"rankContains": 1, "tagsIsNil": true, "updatedAtLT": "2026-01-01T00:00:00Z", "bossID": uuid.New().String(), "bossIDIsNil": true,
	} {
		_, err := e.compile(user, Input{"or": []any{map[string]any{"not": map[string]any{key: value}}}})
		require.ErrorContains(t, err, "where."+key+" cannot be followed: ")
		require.Equal(t, BadUserInput, codeOf(err))
		_, err = e.compile(user, Input{key: nil})
		require.NoError(t, err)
	}
}

func TestMatchKeys(t *testing.T) {
	t.Parallel()
	e := newSamples(t, dbtest.New(t)).Entity
	type all = []any
	type where = map[string]any
	const id, other = "0190a5c0-0000-7000-8000-000000000001", "0190a5c0-0000-7000-8000-000000000002"
	for _, c := range []struct {
		in       Input
		key      string
		personal bool   // to a user
		pinned   string // home
	}{
		{Input{}, `and()`, false, ""},
		{Input{"labelIn": all{}}, `or()`, false, ""},
		{Input{"not": where{"or": all{where{}, where{"rank": 1}}}}, `or()`, true, ""},
		{Input{"label": "a"}, `label In("a")`, false, ""},
		{Input{"labelIn": all{"b", "a", "b"}}, `label In("a","b")`, false, ""},
		{Input{"labelNEQ": `a","b`}, `not label In("a\",\"b")`, false, ""},
		{Input{"not": where{"labelNotIn": all{"a"}}}, `label In("a")`, false, ""},
		{Input{"scoreGT": 1, "versionGTE": 2}, `and(not score LTE(1), not version LT(2))`, false, ""},
		{Input{"labelNotNil": false}, `label IsNil()`, false, ""},
		{Input{"labelEqualFold": "Ä"}, `label EqualFold("ä")`, false, ""},
		{Input{"at": "2026-01-01T01:00:00+01:00"}, `at In(2026-01-01 00:00:00 +0000 UTC)`, false, ""},
		{Input{"score": math.Copysign(0, -1)}, `score In(0)`, false, ""},
		{Input{"rank": 1}, `rank In(1)`, true, ""},
		{Input{"ownerID": id}, `ownerID In(` + id + `)`, false, ""},
		{Input{"homeID": id, "and": all{where{"homeID": id}}}, `homeID In(` + id + `)`, false, id},
		{Input{"and": all{where{"label": "a"}, where{"and": all{where{"homeIDIn": all{id, id}}}}}},
			`and(homeID In(` + id + `), label In("a"))`, false, id},
		{Input{"homeIDIn": all{id, other}}, `homeID In(` + id + `,` + other + `)`, false, ""},
		{Input{"homeIDNEQ": id}, `not homeID In(` + id + `)`, false, ""},
		{Input{"or": all{where{"homeID": id}, where{"label": "a"}}}, `or(homeID In(` + id + `), label In("a"))`, false, ""},
		{Input{"or": all{where{"homeID": id, "label": "a"}}}, `and(homeID In(` + id + `), label In("a"))`, false, id},
		{Input{"homeIDLTE": id}, `homeID LTE(` + id + `)`, false, ""},
	} {
		m, err := e.compile(asker{Viewer: viewer.Viewer{Role: viewer.User}, signedIn: true}, c.in)
		require.NoError(t, err)
		require.Equal(t, c.key, m.key(), "%v", c.in)
		require.Equal(t, c.personal, m.personal(), "%v", c.in)
		pinned := ""
		if id, ok := m.pinned(e.fields["homeID"]); ok {
			pinned = id.String()
		}
		require.Equal(t, c.pinned, pinned, "%v", c.in)
		_, ok := m.pinned(e.fields["bossID"])
		require.False(t, ok)
	}
}

func BenchmarkMatch(b *testing.B) {
	e := newSamples(b, dbtest.New(b)).Entity
	home, at, mood := uuid.New(), time.Now(), sampleMood("sad")
	n := &sample{ID: uuid.New(), Version: 3, Home: &home, Label: new("Grüße aus Köln, und alles Gute"), Rank: new(7), At: &at, Mood: &mood,
		Score: new(2.5)}
	user := asker{Viewer: viewer.Viewer{ID: uuid.New(), Role: viewer.User}, signedIn: true}
	in := map[string]Input{
		"id":   {"homeID": home.String()},
		"fold": {"labelContainsFold": "KÖLN"},
		"in":   {"moodIn": []any{"happy", "sad"}},
		"many": {"homeID": home.String(), "labelHasPrefix": "G", "versionGT": 2, "or": []any{map[string]any{"mood": "happy"},
			map[string]any{"atGT": "2026-01-01T00:00:00Z", "not": map[string]any{"score": 1}}}},
		"some": {"rank": 7},
	}
	for _, name := range slices.Sorted(maps.Keys(in)) {
		m, err := e.compile(user, in[name])
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if m.holds(n) == (name == "some") {
					b.Fatal(name)
				}
			}
		})
	}
	b.Run("compile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = e.compile(user, in["many"])
		}
	})
}

func codeOf(err error) Code {
	e, _ := errors.AsType[*Error](err)
	if e == nil {
		return ""
	}
	return e.Code
}
