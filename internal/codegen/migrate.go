package codegen

import (
	"bytes"
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	entschema "entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/entc/gen"

	"godstack/internal/entity"
)

// snapshotFile is what the database looks like after the last migration: the other side of the next difference.
const snapshotFile = "schema.hcl"

// trackPrefix begins a snapshot's line about a table that the change log follows.
const trackPrefix = "# track: "

// Migration is a step that generation has written.
type Migration struct {
	File string
	// Losses are the tables and columns whose data the step removes. A renamed field looks like one removed and
	// one added; whoever renames edits the file.
	Losses []string
}

// migration writes the difference between the graph's tables and the snapshot in dir as the next migration,
// and the new snapshot. It returns nil if there is none. No database is involved.
func migration(g *gen.Graph, dir string, now time.Time) (*Migration, error) {
	want, err := wanted(g)
	if err != nil {
		return nil, err
	}
	tracks, err := tracked(g)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, snapshotFile)
	have, oldTracks, err := readSnapshot(file)
	if err != nil {
		return nil, err
	}
	text, err := postgres.MarshalHCL(want)
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	// Both sides go through HCL, so that they have one normal form.
	norm := &schema.Realm{}
	if err := postgres.EvalHCLBytes(text, norm, nil); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	changes, err := postgres.DefaultDiff.SchemaDiff(have, norm.Schemas[0])
	if err != nil {
		return nil, fmt.Errorf("compare schemas: %w", err)
	}
	m := &Migration{}
	touched, err := m.inspect(g, changes)
	if err != nil {
		return nil, err
	}
	body, err := m.statements(changes, touched, oldTracks, tracks)
	if err != nil || body == "" {
		return nil, err
	}
	for _, t := range tracks {
		text = append(text, trackPrefix+t.String()+"\n"...)
	}
	what := migrationName(changes)
	if oldTracks == nil {
		what = "init"
	}
	version, err := nextVersion(dir, now)
	if err != nil {
		return nil, err
	}
	m.File = filepath.Join(dir, version+"_"+what+".sql")
	if err := writeFile(m.File, []byte(body)); err != nil {
		return nil, err
	}
	return m, writeFile(file, text)
}

// wanted returns the tables of the graph.
func wanted(g *gen.Graph) (*schema.Realm, error) {
	tables, err := g.Tables()
	if err != nil {
		return nil, err
	}
	a, err := entschema.NewMigrate(noDatabase{}, entschema.WithForeignKeys(true))
	if err != nil {
		return nil, err
	}
	realm, err := a.StateReader(tables...).ReadState(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	realm.Schemas[0].Name = "public"
	// ent gives a join table the primary key (from, to), which serves one direction.
	for _, n := range g.Nodes {
		for _, d := range n.Edges {
			if !d.M2M() || d.IsInverse() {
				continue
			}
			if t, ok := realm.Schemas[0].Table(d.Rel.Table); ok {
				if c, ok := t.Column(d.Rel.Columns[1]); ok {
					t.AddIndexes(schema.NewIndex(t.Name + "_" + c.Name + "_idx").AddColumns(c))
				}
			}
		}
	}
	return realm, nil
}

func readSnapshot(file string) (*schema.Schema, []track, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return schema.New("public"), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	realm := &schema.Realm{}
	if err := postgres.EvalHCLBytes(b, realm, nil); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	var tracks []track
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(trackPrefix)); ok {
			table, call, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
			tracks = append(tracks, track{table, call})
		}
	}
	return realm.Schemas[0], tracks, nil
}

// track is a call that has a table's changes versioned and logged.
type track struct{ table, call string }

func (t track) String() string { return t.table + " " + t.call }

// tracked lists the calls that the graph's tables need.
func tracked(g *gen.Graph) ([]track, error) {
	var out []track
	for _, n := range g.Nodes {
		a, err := entity.Decode(n.Annotations)
		if err != nil {
			return nil, err
		}
		var secret []string
		for _, f := range n.Fields {
			if f.Sensitive() {
				secret = append(secret, f.StorageKey())
			}
		}
		out = append(out, track{n.Table(), fmt.Sprintf("changelog_track('%s', '%s', '{%s}', %t)", n.Table(), snake(n.Name),
			strings.Join(secret, ","), !a.Internal || a.Logged)})
		for _, d := range n.Edges {
			if a.Internal || !d.M2M() || d.IsInverse() {
				continue
			}
			out = append(out, track{d.Rel.Table, fmt.Sprintf("changelog_track_join('%s', '%s', '%s', '%s', '%s', '%s')", d.Rel.Table,
				snake(n.Name), n.Table(), d.Rel.Columns[0], d.Rel.Columns[1], camel(d.Name))})
		}
	}
	return out, nil
}

// inspect notes what the changes lose, refuses what cannot be applied to a table with rows, and returns the tables
// whose columns change.
func (m *Migration) inspect(g *gen.Graph, changes []schema.Change) (touched []string, err error) {
	for _, c := range changes {
		switch c := c.(type) {
		case *schema.AddTable:
			touched = append(touched, c.T.Name)
		case *schema.DropTable:
			m.Losses = append(m.Losses, "table "+c.T.Name)
		case *schema.ModifyTable:
			for _, c2 := range c.Changes {
				switch c2 := c2.(type) {
				case *schema.AddColumn:
					touched = append(touched, c.T.Name)
					if !c2.C.Type.Null && c2.C.Default == nil {
						return nil, fmt.Errorf("%s: is new and required: give it a constant Default (of a function the database knows nothing; "+
							"for that there is entsql.DefaultExpr), for the records that are there already, or make it Optional", columnPlace(g, c.T.Name, c2.C.Name))
					}
				case *schema.DropColumn:
					touched = append(touched, c.T.Name)
					m.Losses = append(m.Losses, "column "+c.T.Name+"."+c2.C.Name)
				case *schema.ModifyColumn:
					touched = append(touched, c.T.Name)
				}
			}
		}
	}
	return slices.Compact(touched), nil
}

// statements writes the migration: tables first, then what follows their changes.
func (m *Migration) statements(changes []schema.Change, touched []string, before, after []track) (string, error) {
	var b strings.Builder
	b.WriteString("-- +goose Up\n")
	for _, l := range m.Losses {
		fmt.Fprintf(&b, "\n-- ATTENTION: this loses the data of %s. If it was renamed, write ALTER TABLE ... RENAME instead.\n", l)
	}
	n := 0
	for _, t := range before {
		if !slices.ContainsFunc(after, func(a track) bool { return a.table == t.table }) {
			fmt.Fprintf(&b, "\nSELECT changelog_untrack('%s');\n", t.table)
			n++
		}
	}
	if len(changes) > 0 {
		plan, err := postgres.DefaultPlan.PlanChanges(context.Background(), "", changes, func(o *migrate.PlanOptions) {
			none := ""
			o.SchemaQualifier, o.Indent = &none, "  "
		})
		if err != nil {
			return "", fmt.Errorf("plan migration: %w", err)
		}
		for _, c := range plan.Changes {
			fmt.Fprintf(&b, "\n-- %s\n%s;\n", c.Comment, c.Cmd)
			n++
		}
	}
	for _, t := range after {
		if slices.Contains(before, t) && !slices.Contains(touched, t.table) {
			continue
		}
		fmt.Fprintf(&b, "\nSELECT %s;\n", t.call)
		n++
	}
	if n == 0 {
		return "", nil
	}
	return b.String(), nil
}

// migrationName says what a migration does, for its file's name.
func migrationName(changes []schema.Change) string {
	var parts []string
	for _, c := range changes {
		switch c := c.(type) {
		case *schema.AddTable:
			parts = append(parts, "create_"+c.T.Name)
		case *schema.DropTable:
			parts = append(parts, "drop_"+c.T.Name)
		case *schema.ModifyTable:
			parts = append(parts, "alter_"+c.T.Name)
		}
	}
	switch len(parts) {
	case 0:
		return "track_changes"
	case 1, 2:
		return strings.Join(parts, "_and_")
	}
	return "change_schema"
}

// noDatabase is the driver of a Postgres 13 that only says so.
type noDatabase struct{}

var errNoDatabase = errors.New("generation uses no database")

func (noDatabase) Dialect() string                              { return dialect.Postgres }
func (noDatabase) Close() error                                 { return nil }
func (noDatabase) Tx(context.Context) (dialect.Tx, error)       { return nil, errNoDatabase }
func (noDatabase) Exec(context.Context, string, any, any) error { return errNoDatabase }

func (noDatabase) Query(_ context.Context, query string, _, v any) error {
	rows, ok := v.(*sql.Rows)
	if !ok || !strings.Contains(query, "server_version_num") {
		return fmt.Errorf("%w: %s", errNoDatabase, query)
	}
	*rows = sql.Rows{ColumnScanner: &versionRow{}}
	return nil
}

// versionRow is the one row of the answer.
type versionRow struct{ read bool }

func (*versionRow) Close() error                               { return nil }
func (*versionRow) ColumnTypes() ([]*stdsql.ColumnType, error) { return nil, nil }
func (*versionRow) Columns() ([]string, error)                 { return []string{"server_version_num"}, nil }
func (*versionRow) Err() error                                 { return nil }
func (*versionRow) NextResultSet() bool                        { return false }

func (r *versionRow) Next() bool {
	first := !r.read
	r.read = true
	return first
}

func (*versionRow) Scan(dest ...any) error {
	s, ok := dest[0].(*string)
	if !ok {
		return fmt.Errorf("scan version into %T", dest[0])
	}
	*s = "130000"
	return nil
}
