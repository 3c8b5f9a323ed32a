package record

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
	"godstack/internal/viewer"
)

// thing is a record of any entity of these tests: they have the same columns, with other meanings.
type thing struct {
	ID      uuid.UUID
	Version int
	A, B    *uuid.UUID
	Secret  *string
	Deleted *time.Time
}

func (*thing) ScanTargets(columns []string) ([]any, error) {
	targets := make([]any, len(columns))
	for i, c := range columns {
		switch c {
		case "id":
			targets[i] = new(uuid.UUID)
		case "version":
			targets[i] = new(int)
		case "secret":
			targets[i] = new(*string)
		case "deleted_at":
			targets[i] = new(*time.Time)
		default:
			targets[i] = new(*uuid.UUID)
		}
	}
	return targets, nil
}

func (n *thing) AssignRow(columns []string, targets []any) error {
	for i, c := range columns {
		switch c {
		case "id":
			n.ID = *targets[i].(*uuid.UUID)
		case "version":
			n.Version = *targets[i].(*int)
		case "secret":
			n.Secret = *targets[i].(**string)
		case "deleted_at":
			n.Deleted = *targets[i].(**time.Time)
		case "a":
			n.A = *targets[i].(**uuid.UUID)
		case "b":
			n.B = *targets[i].(**uuid.UUID)
		}
	}
	return nil
}

// world is a set of records, in a database and in memory.
type world struct {
	pool   *pgxpool.Pool
	r      *rand.Rand
	things map[string][]*thing // by entity
	links  map[string][][2]uuid.UUID
	users  []asker
}

// the entities: residents live in a room (User.a); a room has an owner (a), members, and guests, whose links are declared by
// the user; a note lies in a room (a) and has an author (b); a comment is on a note (a).
var worldEntities = []string{"User", "Room", "Note", "Comment"}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{pool: dbtest.New(t), r: rand.New(rand.NewPCG(seed, 1)), things: map[string][]*thing{}, links: map[string][][2]uuid.UUID{}}
	exec := func(sql string, args ...any) {
		_, err := w.pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	for _, e := range worldEntities {
		exec(fmt.Sprintf(`CREATE TABLE w_%s (id uuid PRIMARY KEY, version bigint, a uuid, b uuid, secret text, deleted_at timestamptz)`, strings.ToLower(e)))
	}
	for _, e := range worldEntities {
		for range map[string]int{"User": 5, "Room": 7, "Note": 10, "Comment": 10}[e] {
			n := &thing{ID: uuid.New(), Version: 1}
			if e != "User" {
				n.A = w.some(map[string]string{"Room": "User", "Note": "Room", "Comment": "Note"}[e])
			}
			if e == "Note" {
				n.B = w.some("User")
			}
			if w.r.IntN(4) > 0 {
				n.Secret = new(fmt.Sprintf("secret%d", w.r.IntN(5)))
			}
			if w.r.IntN(4) == 0 {
				n.Deleted = new(time.Unix(1_700_000_000, 0))
			}
			w.things[e] = append(w.things[e], n)
		}
	}
	for _, u := range w.things["User"] {
		u.A = w.some("Room")
	}
	for _, e := range worldEntities {
		for _, n := range w.things[e] {
			exec(fmt.Sprintf(`INSERT INTO w_%s VALUES ($1, 1, $2, $3, $4, $5)`, strings.ToLower(e)), n.ID, n.A, n.B, n.Secret, n.Deleted)
		}
	}
	for _, table := range []string{"w_members", "w_guests"} {
		exec(`CREATE TABLE ` + table + ` (room uuid, person uuid)`)
		for _, room := range w.things["Room"] {
			for _, u := range w.things["User"] {
				if w.r.IntN(4) == 0 {
					w.links[table] = append(w.links[table], [2]uuid.UUID{room.ID, u.ID})
					exec(`INSERT INTO `+table+` VALUES ($1, $2)`, room.ID, u.ID)
				}
			}
		}
	}
	w.users = []asker{{}}
	for i, u := range w.things["User"] {
		role := []string{viewer.User, viewer.Moderator, viewer.Admin}[i%3]
		w.users = append(w.users, asker{Viewer: viewer.Viewer{ID: u.ID, Role: role}, signedIn: true})
	}
	return w
}

// some returns the id of a record, or nil.
func (w *world) some(e string) *uuid.UUID {
	if w.r.IntN(5) == 0 {
		return nil
	}
	return &w.things[e][w.r.IntN(len(w.things[e]))].ID
}

// anyRule makes up a rule for an entity. A local one needs nothing but the row.
func (w *world) anyRule(e string, depth int, local bool) entity.Rule {
	leaves := []entity.Rule{entity.Anyone(), entity.SignedIn(), entity.Role(viewer.Moderator), entity.Role(viewer.Admin), {}}
	var own []entity.Rule
	switch e {
	case "User":
		own = []entity.Rule{entity.Self()}
	case "Room":
		own = []entity.Rule{entity.Is("owner")}
		if !local {
			own = append(own, entity.Has("members"), entity.Has("guests"), entity.Has("residents"))
		}
	case "Note":
		own = []entity.Rule{entity.Is("author")}
		if !local {
			own = append(own, entity.Through("room"), entity.Through("room", entity.Update), entity.Custom("hasSecret"))
		}
	case "Comment":
		if !local {
			own = []entity.Rule{entity.Through("note"), entity.Through("note", entity.Delete)}
		}
	}
	switch n := w.r.IntN(10); {
	case depth > 0 && n < 4:
		parts := make([]entity.Rule, 1+w.r.IntN(3))
		for i := range parts {
			parts[i] = w.anyRule(e, depth-1, local)
		}
		if n < 2 {
			return entity.Any(parts...)
		}
		return entity.All(parts...)
	case n < 9 && len(own) > 0:
		return own[w.r.IntN(len(own))]
	}
	return leaves[w.r.IntN(len(leaves))]
}

// engine makes up rules, and returns an engine that has them.
func (w *world) engine(t *testing.T) (*Engine, map[string]*Store) {
	t.Helper()
	edges := map[string][]Edge{
		"User": {{Name: "room", To: "Room", Field: "aID"}},
		"Room": {
			{Name: "owner", To: "User", Field: "aID"},
			{Name: "members", To: "User", Through: "w_members", From: "room", Ref: "person"},
			{Name: "guests", To: "User", Through: "w_guests", From: "room", Ref: "person"},
			{Name: "residents", To: "User", From: "a"},
		},
		"Note":    {{Name: "room", To: "Room", Field: "aID"}, {Name: "author", To: "User", Field: "bID"}},
		"Comment": {{Name: "note", To: "Note", Field: "aID"}},
	}
	stores := map[string]*Store{}
	var list []*Store
	for _, name := range worldEntities {
		lower := strings.ToLower(name)
		e := &Entity{
			Name: name, Prefix: lower, List: lower + "s", Table: "w_" + lower, Edges: edges[name],
			Access: entity.Access{
				Read: w.anyRule(name, 2, false), Create: w.anyRule(name, 2, false), Update: w.anyRule(name, 2, false), Delete: w.anyRule(name, 2, false),
			},
			Fields: []Field{
				{Name: "id", Column: "id", Go: "ID", Kind: UUID, Use: InType | InFilter},
				{Name: "version", Column: "version", Go: "Version", Kind: Int, Use: InType},
				{Name: "aID", Column: "a", Go: "A", Kind: UUID, Nullable: true, Use: InFilter},
				{Name: "bID", Column: "b", Go: "B", Kind: UUID, Nullable: true, Use: InFilter},
				{Name: "secret", Column: "secret", Go: "Secret", Kind: String, Nullable: true, Order: "SECRET", Use: InType | InFilter,
					ReadableBy: new(w.anyRule(name, 2, true))},
			},
		}
		if w.r.IntN(2) == 0 {
			e.SoftDelete = true
			e.Fields = append(e.Fields, Field{Name: "deletedAt", Column: "deleted_at", Go: "Deleted", Kind: Time, Nullable: true, Use: InType | InFilter})
			if w.r.IntN(2) == 0 {
				e.Restore = new(w.anyRule(name, 2, false))
			}
		}
		stores[name] = NewStore(e, Model{New: func() Node { return &thing{} }})
		list = append(list, stores[name])
	}
	g, err := NewEngine(entpgx.Open(w.pool), list, &Config{Rules: map[string]CustomRule{"hasSecret": {
		Where: func(p *Predicate, _ viewer.Viewer, signedIn bool) {
			p.Column("secret")
			p.Write(" > ")
			p.Arg("secret1")
			if !signedIn {
				p.Write(" AND false")
			}
		},
	}}})
	require.NoError(t, err)
	return g, stores
}

// holds is what rules mean, said as plainly as can be.
func (w *world) holds(stores map[string]*Store, e string, r entity.Rule, n *thing, a asker) bool {
	linked := func(table string) bool { return slices.Contains(w.links[table], [2]uuid.UUID{n.ID, a.ID}) }
	is := func(id *uuid.UUID) bool { return a.signedIn && id != nil && *id == a.ID }
	switch r.Kind {
	case "":
		return a.signedIn && a.Role == viewer.Admin
	case entity.KindAnyone:
		return true
	case entity.KindSignedIn:
		return a.signedIn
	case entity.KindRole:
		return a.signedIn && (a.Role == viewer.Admin || a.Role == r.Name)
	case entity.KindSelf:
		return is(&n.ID)
	case entity.KindIs:
		if r.Name == "author" {
			return is(n.B)
		}
		return is(n.A)
	case entity.KindHas:
		if r.Name == "residents" {
			return slices.ContainsFunc(w.things["User"], func(u *thing) bool { return is(&u.ID) && u.A != nil && *u.A == n.ID })
		}
		return linked("w_" + r.Name)
	case entity.KindThrough:
		to := map[string]string{"Note": "Room", "Comment": "Note"}[e]
		for _, m := range w.things[to] {
			if n.A != nil && m.ID == *n.A {
				access := stores[to].Access
				own := map[entity.Operation]entity.Rule{entity.Update: access.Update, entity.Delete: access.Delete}[r.Op]
				return w.reads(stores, to, m, a, ExcludeDeleted) && (r.Op == "" || w.holds(stores, to, own, m, a))
			}
		}
		return false
	case entity.KindCustom:
		return a.signedIn && n.Secret != nil && *n.Secret > "secret1"
	case entity.KindAny:
		return slices.ContainsFunc(r.Rules, func(p entity.Rule) bool { return w.holds(stores, e, p, n, a) })
	}
	return !slices.ContainsFunc(r.Rules, func(p entity.Rule) bool { return !w.holds(stores, e, p, n, a) })
}

// reads is what it means to read a record, of those that are asked for.
func (w *world) reads(stores map[string]*Store, e string, n *thing, a asker, deleted ShowDeleted) bool {
	s := stores[e]
	reads := w.holds(stores, e, s.Access.Read, n, a)
	if !s.SoftDelete || n.Deleted == nil {
		return reads && deleted != OnlyDeleted
	}
	restore := s.Access.Delete
	if s.Restore != nil {
		restore = *s.Restore
	}
	return reads && deleted != ExcludeDeleted && w.holds(stores, e, restore, n, a)
}

func ids(things []*thing) []string {
	out := []string{}
	for _, n := range things {
		out = append(out, n.ID.String())
	}
	slices.Sort(out)
	return out
}

// Whatever the rules, data and viewers, records are the same by id, in lists, in counts, in memory, and as the rules are
// meant; and filters, orders and cursors tell nothing of a field that the viewer may not read.
func TestRulesHoldEverywhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			for range 12 {
				_, stores := w.engine(t)
				for _, name := range worldEntities {
					for _, a := range w.users {
						w.check(t, stores, name, a)
					}
				}
			}
		})
	}
}

// The checks around a write say what the rules mean: ids must be readable before it, a new record must meet the rule of create,
// and so must one that is moved.
func TestRulesHoldForWrites(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100+seed)
			for range 15 {
				_, stores := w.engine(t)
				for _, a := range w.users {
					w.checkWrites(t, stores, a)
				}
			}
		})
	}
}

func (w *world) checkWrites(t *testing.T, stores map[string]*Store, a asker) {
	t.Helper()
	s := stores["Note"]
	s.fields["aID"].edge.Input = "roomID"
	note := fmt.Sprintf("%+v, rooms %+v, as %+v", s.Access, stores["Room"].Access, a)
	room := w.things["Room"][w.r.IntN(len(w.things["Room"]))]
	v := &Values{ID: uuid.New(), Set: []Assignment{{"a", room.ID}}}

	// try runs a write with its checks, and undoes it.
	try := func(c checks, sql string, args ...any) (refused string) {
		tx, err := w.pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
		for _, st := range []*entpgx.Statement{c.before, {SQL: sql, Args: args}, c.after} {
			if st == nil {
				continue
			}
			_, err := tx.Exec(t.Context(), st.SQL, st.Args...)
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == accessRefused {
				return pg.Detail
			}
			require.NoError(t, err, note)
		}
		return ""
	}
	visible := w.reads(stores, "Room", room, a, ExcludeDeleted)
	made := &thing{ID: v.ID, Version: 1, A: &room.ID, B: &a.ID}
	if !a.signedIn {
		made.B = nil
	}
	want := ""
	switch holds, known := a.known(s.rules[entity.Create]); {
	case !visible:
		want = "roomID"
	case known && !holds: // which Create says without a statement
	case !w.holds(stores, "Note", s.Access.Create, made, a):
		want = "create"
	}
	got := try(checks{s.checkIDs(a, v, InCreate), s.checkNew(a, v)}, `INSERT INTO w_note VALUES ($1, 1, $2, $3, NULL)`, v.ID, room.ID, made.B)
	require.Equal(t, want, got, "create: "+note)

	old := w.things["Note"][w.r.IntN(len(w.things["Note"]))]
	moved := *old
	moved.A = &room.ID
	want = ""
	looks := s.rules[entity.Create].looksAt(s.fields["aID"].edge) || s.rules[entity.Update].looksAt(s.fields["aID"].edge)
	switch {
	case !visible:
		want = "roomID"
	case looks && !w.holds(stores, "Note", s.Access.Create, &moved, a):
		want = "update"
	}
	got = try(checks{s.checkIDs(a, v, InUpdate), s.checkMoved(a, old.ID, v)}, `UPDATE w_note SET a = $2 WHERE id = $1`, old.ID, room.ID)
	require.Equal(t, want, got, "update: "+note)
	// Where nothing was updated there is nothing to refuse but ids.
	got = try(checks{nil, s.checkMoved(a, old.ID, v)}, `UPDATE w_note SET a = $2 WHERE id = $1 AND false`, old.ID, room.ID)
	require.Empty(t, got, note)
}

func (w *world) check(t *testing.T, stores map[string]*Store, name string, a asker) {
	t.Helper()
	s, ctx := stores[name], a.context(t.Context())
	note := fmt.Sprintf("%s %+v %+v as %+v", name, s.Access, s.fields["secret"].ReadableBy, a)
	var all []uuid.UUID
	var want []*thing
	for _, n := range w.things[name] {
		all = append(all, n.ID)
		if w.reads(stores, name, n, a, ExcludeDeleted) {
			want = append(want, n)
		}
	}
	found, err := s.byID(ctx, all)
	require.NoError(t, err, note)
	var got []*thing
	for _, n := range found {
		got = append(got, n.(*thing))
	}
	require.Equal(t, ids(want), ids(got), "by id: "+note)

	loaded, err := s.load(ctx, all)
	require.NoError(t, err)
	got = nil
	for _, op := range []entity.Operation{reading, entity.Create, entity.Update, entity.Delete} {
		own := map[entity.Operation]entity.Rule{reading: s.Access.Read, entity.Create: s.Access.Create, entity.Update: s.Access.Update, entity.Delete: s.Access.Delete}[op]
		var all []question
		for _, n := range loaded {
			all = append(all, question{node: n, who: []asker{{}, a}})
		}
		together, err := s.decide(ctx, s.need(op), all)
		require.NoError(t, err, note)
		for i, q := range all {
			n := q.node
			alone, err := s.decide(ctx, s.need(op), []question{q})
			require.NoError(t, err, note)
			require.Equal(t, alone[0], together[i], "alone and together, %s: %s", op, note)
			allowed := together[i]
			require.Equal(t, w.reads(stores, name, n.(*thing), a, ExcludeDeleted) && w.holds(stores, name, own, n.(*thing), a), allowed[1], "in memory, %s: %s", op, note)
			if op == reading && allowed[1] {
				got = append(got, n.(*thing))
			}
		}
	}
	require.Equal(t, ids(want), ids(got), "in memory: "+note)

	n, err := s.Count(ctx, nil)
	require.NoError(t, err, note)
	require.Equal(t, len(want), n, "count: "+note)

	// Deleted records, for who asks for them.
	for _, deleted := range []ShowDeleted{ExcludeDeleted, IncludeDeleted, OnlyDeleted} {
		note := fmt.Sprintf("deleted %s, restored by %+v: %s", deleted, s.Restore, note)
		var want []*thing
		for _, n := range w.things[name] {
			if w.reads(stores, name, n, a, deleted) {
				want = append(want, n)
			}
		}
		p := Page{First: new(100), Deleted: &deleted}
		c, err := s.Find(ctx, p)
		require.NoError(t, err, note)
		var listed, held []*thing
		for _, n := range c.Nodes {
			listed = append(listed, n.(*thing))
		}
		require.Equal(t, ids(want), ids(listed), "list: "+note)
		n, err := s.count(ctx, p)
		require.NoError(t, err, note)
		require.Equal(t, len(want), n, "count: "+note)
		var all []question
		for _, n := range loaded {
			all = append(all, question{node: n, who: []asker{a}})
		}
		holds, err := s.decide(ctx, s.shows(deleted), all)
		require.NoError(t, err, note)
		for i, q := range all {
			if holds[i][0] {
				held = append(held, q.node.(*thing))
			}
		}
		require.Equal(t, ids(want), ids(held), "in memory: "+note)
	}

	// The secret, as this viewer may know it.
	secret := func(n *thing) string {
		if n.Secret == nil || !w.holds(stores, name, *s.fields["secret"].ReadableBy, n, a) {
			return "~" // after all others, as null
		}
		return *n.Secret
	}
	for _, value := range []string{"secret0", "secret3"} {
		var equal, other []*thing
		for _, n := range want {
			if v := secret(n); v == value {
				equal = append(equal, n)
			} else if v != "~" {
				other = append(other, n)
			}
		}
		for key, want := range map[string][]*thing{"secret": equal, "secretNEQ": other, "secretNotIn": other} {
			var operand any = value
			if key == "secretNotIn" {
				operand = []any{value}
			}
			n, err := s.Count(ctx, Input{key: operand})
			require.NoError(t, err, note)
			require.Len(t, want, n, "%s: %s", key, note)
		}
	}
	slices.SortFunc(want, func(x, y *thing) int {
		return strings.Compare(secret(x)+x.ID.String(), secret(y)+y.ID.String())
	})
	page := Page{First: new(3), OrderBy: []*Order{{Field: "SECRET"}}}
	var listed []string
	for {
		c, err := s.Find(ctx, page)
		require.NoError(t, err, note)
		for i, n := range c.Nodes {
			listed = append(listed, n.(*thing).ID.String())
			text, err := base64.RawURLEncoding.DecodeString(string(c.Cursor(i)))
			require.NoError(t, err)
			if secret(n.(*thing)) == "~" {
				require.NotContains(t, string(text), "secret", "cursor: "+note)
			}
		}
		if !c.HasNextPage {
			break
		}
		page.After = new(c.Cursor(len(c.Nodes) - 1))
	}
	var order []string
	for _, n := range want {
		order = append(order, n.ID.String())
	}
	require.Equal(t, order, listed, "list: "+note)

	// What an edge leads to is known only where that may be read.
	for _, d := range s.Edges {
		if !d.ToOne() {
			continue
		}
		visible, led := 0, 0
		for _, n := range want {
			id, _ := d.field.value(reflect.ValueOf(n)).(uuid.UUID)
			for _, m := range w.things[d.To] {
				if m.ID == id && w.reads(stores, d.To, m, a, ExcludeDeleted) {
					visible++
				}
				if m.ID == id {
					led++
				}
			}
		}
		known := visible
		if all, certain := a.decided(stores[d.To].rules[reading], true); all && certain && !implies(s.rules[reading], d.field.edge) {
			known = led // the ids of deleted records are no secret to who reads all others
		}
		for _, x := range []struct {
			where Input
			want  int
		}{{Input{d.Field + "NotNil": true}, known}, {Input{"has" + strings.ToUpper(d.Name[:1]) + d.Name[1:]: true}, visible}} {
			n, err := s.Count(ctx, x.where)
			require.NoError(t, err, note)
			require.Equal(t, x.want, n, "%v: %s", x.where, note)
		}
	}
}
