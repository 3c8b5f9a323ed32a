package record

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"godstack/internal/changelog"
	"godstack/internal/entpgx"
	"godstack/internal/replica"
)

// Node is a record: a pointer to a generated ent struct, which knows how ent scans a row.
type Node interface {
	// ScanTargets returns what a row with these columns is scanned into.
	ScanTargets(columns []string) ([]any, error)
	// AssignRow sets the record's fields from scanned targets.
	AssignRow(columns []string, targets []any) error
}

// Model is what generated code supplies for an entity beside its description: ent's way to make and to write it.
type Model struct {
	New func() Node
	// Create inserts a record through drv.
	Create func(ctx context.Context, drv dialect.Driver, v *Values) (Node, error)
	// Update changes the record that has this id and version, and meets may unless that is nil; ErrNoRow says that there
	// is none.
	Update func(ctx context.Context, drv dialect.Driver, id uuid.UUID, version int, v *Values, may func(*sql.Selector)) (Node, error)
	// Delete removes the record that has this id and version, and meets may, and says how many that were.
	Delete func(ctx context.Context, drv dialect.Driver, id uuid.UUID, version int, may func(*sql.Selector)) (int, error)
	// Hooked reports whether hooks are registered, whose statements belong into the write's transaction.
	Hooked func() bool
	// Invalid returns the field that a validation error of ent is about.
	Invalid func(error) (field string, ok bool)
}

// Store reads and writes the records of one entity.
type Store struct {
	*Entity
	engine *Engine
	model  Model
}

// NewStore returns the store of an entity. It is of use once NewEngine has got it.
func NewStore(e *Entity, m Model) *Store { return &Store{Entity: e, model: m} }

// Engine is what all stores share.
type Engine struct {
	driver    *entpgx.Driver
	replica   *replica.Replica   // nil for none
	standby   *entpgx.Driver     // of replica
	stores    map[string]*Store  // by prefix
	entities  map[string]*Entity // by name
	hub       *hub
	sealer    *changelog.Sealer
	nowhere   string // the cursor of events that are no place to go on from
	committed func()
	batchWait time.Duration
	log       *slog.Logger

	keys             turns[keyHolder] // of those who send one idempotency key
	keyWait, keyIdle time.Duration
	keyAnswer        int
}

// Config of an Engine. The zero value is the default.
type Config struct {
	// Committed is called after each committed write, to wake whoever delivers changes. It must not block.
	Committed func()
	// Watching is called when the number of subscriptions changes. It must not block.
	Watching func(n int)
	// BatchWait is how long a request's loaders wait for more keys: long enough for the root fields of an operation
	// to ask, which run at the same time. An operation of one field does not wait. Default 200 µs.
	BatchWait time.Duration
	// CursorKeys seal the cursors of streams: the first makes them, all are accepted, and all nodes have the same. None: a random one,
	// whose cursors nobody else accepts.
	CursorKeys [][]byte
	// Replica is where [Engine.ReadAfter] reads. Nil: there is none.
	Replica *replica.Replica
	// KeyWait is how long who sends an idempotency key waits for another who has it: here, and then in the database. Default 10 s.
	KeyWait time.Duration
	// KeyIdle is how long the transaction of who has an idempotency key may stand idle before Postgres ends it, as where its node has
	// vanished. Default 30 s.
	KeyIdle time.Duration
	// KeyAnswer is how many bytes are kept of an answer for its idempotency key. What answers with more fails. Default 256 KiB.
	KeyAnswer int
	// Rules are the custom rules that entities name.
	Rules map[string]CustomRule
	// Unrestricted has everybody meet every rule. It is for measuring what rules cost.
	Unrestricted bool
	// Logger gets what goes wrong and no client is told of. Default: slog.Default().
	Logger *slog.Logger
}

// NewEngine joins the stores over a database.
func NewEngine(drv *entpgx.Driver, stores []*Store, cfg *Config) (*Engine, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	g := &Engine{
		driver: drv, stores: map[string]*Store{}, entities: map[string]*Entity{},
		committed: c.Committed, batchWait: cmp.Or(c.BatchWait, 200*time.Microsecond), log: c.Logger,
		keyWait: cmp.Or(c.KeyWait, 10*time.Second), keyIdle: cmp.Or(c.KeyIdle, 30*time.Second), keyAnswer: cmp.Or(c.KeyAnswer, 256<<10),
	}
	if c.Replica != nil {
		g.replica, g.standby = c.Replica, entpgx.Open(c.Replica.Pool())
	}
	if g.committed == nil {
		g.committed = func() {}
	}
	if c.Watching == nil {
		c.Watching = func(int) {}
	}
	g.hub = newHub(g, c.Watching)
	if len(c.CursorKeys) == 0 {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // which never fails
		c.CursorKeys = [][]byte{key}
	}
	g.sealer = changelog.NewSealer(c.CursorKeys...)
	g.nowhere = g.cursor(uuid.Nil, changelog.Seen{})
	if g.log == nil {
		g.log = slog.Default()
	}
	for _, s := range stores {
		g.stores[s.Prefix], g.entities[s.Name] = s, s.Entity
		s.engine = g
	}
	for _, s := range stores {
		if err := s.complete(g.entities, reflect.TypeOf(s.model.New()).Elem()); err != nil {
			return nil, err
		}
	}
	for _, s := range stores {
		if err := s.protect(&c); err != nil {
			return nil, err
		}
	}
	for _, s := range stores {
		s.reaches = map[ShowDeleted][]string{}
		for deleted, r := range s.seeing {
			prefixes := map[string]struct{}{}
			r.reach(prefixes)
			s.reaches[deleted] = slices.Sorted(maps.Keys(prefixes))
		}
	}
	return g, nil
}

// key returns a record's id and version.
func (s *Store) key(n Node) (uuid.UUID, int) {
	v := reflect.ValueOf(n)
	return s.id.value(v).(uuid.UUID), s.version.value(v).(int)
}

// globalID returns the API's id of a row.
func (e *Entity) globalID(id uuid.UUID) ID { return ID{Prefix: e.Prefix, UUID: id} }

// each runs q and calls f for each row, after the leading columns were scanned into extra.
func (s *Store) each(ctx context.Context, q *query, extra []any, f func(Node)) error {
	// The scan targets live for one row after another: AssignRow copies the values out of them.
	targets, err := s.model.New().ScanTargets(s.names)
	if err != nil {
		return err
	}
	dest := slices.Concat(extra, targets)
	err = s.engine.scan(ctx, q, func(rows *sql.Rows) error {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		n := s.model.New()
		if err := n.AssignRow(s.names, targets); err != nil {
			return err
		}
		f(n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", s.Table, err)
	}
	return nil
}
