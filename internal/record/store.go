package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"godstack/internal/entpgx"
)

// Model is what generated code supplies for an entity: ent's way to scan a row and to write one.
type Model[T any] struct {
	New     func() *T
	Targets func(*T, []string) ([]any, error)
	Assign  func(*T, []string, []any) error

	// Create inserts a record through drv.
	Create func(ctx context.Context, drv dialect.Driver, v *Values) (*T, error)
	// Update changes the record that has this id and version; an ent.NotFoundError says that there is none.
	Update func(ctx context.Context, drv dialect.Driver, id uuid.UUID, version int, v *Values) (*T, error)
	// Delete removes the record that has this id and version, and says how many that were.
	Delete func(ctx context.Context, drv dialect.Driver, id uuid.UUID, version int) (int, error)
	// Hooked reports whether hooks are registered, whose statements belong into the write's transaction.
	Hooked func() bool
	// Invalid returns the field that a validation error of ent is about.
	Invalid func(error) (field string, ok bool)
}

// Store reads and writes the records of one entity.
type Store[T any] struct {
	*Entity
	engine *Engine
	model  Model[T]
}

// NewStore returns the store of an entity. It is of use once NewEngine has got it.
func NewStore[T any](e *Entity, m Model[T]) *Store[T] { return &Store[T]{Entity: e, model: m} }

// AnyStore is a Store of some entity.
type AnyStore interface {
	attach(*Engine)
	entity() (*Entity, reflect.Type)
	// load returns the records that exist among ids, by id.
	load(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Node, error)
	// list returns records as the slice type that the record map's field has.
	list(nodes []Node) any
	// newLoaders returns the store's part of a request's loaders.
	newLoaders() any
}

// Node is a record of some entity: every generated ent struct.
type Node interface{ IsNode() }

// Engine is what all stores share.
type Engine struct {
	driver    *entpgx.Driver
	stores    map[string]AnyStore // by prefix
	entities  map[string]*Entity  // by name
	hub       *hub
	committed func()
	log       *slog.Logger
}

// Config of an Engine. The zero value is the default.
type Config struct {
	// Committed is called after each committed write, to wake whoever delivers changes. It must not block.
	Committed func()
	// Watching is called when the number of subscriptions changes. It must not block.
	Watching func(n int)
	// Logger gets what goes wrong behind a subscription. Default: slog.Default().
	Logger *slog.Logger
}

// NewEngine joins the stores over a database.
func NewEngine(drv *entpgx.Driver, stores []AnyStore, cfg *Config) (*Engine, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	g := &Engine{
		driver: drv, stores: map[string]AnyStore{}, entities: map[string]*Entity{},
		committed: c.Committed, log: c.Logger,
	}
	if g.committed == nil {
		g.committed = func() {}
	}
	if c.Watching == nil {
		c.Watching = func(int) {}
	}
	g.hub = newHub(c.Watching)
	if g.log == nil {
		g.log = slog.Default()
	}
	for _, s := range stores {
		e, _ := s.entity()
		g.stores[e.Prefix], g.entities[e.Name] = s, e
	}
	for _, s := range stores {
		e, model := s.entity()
		if err := e.complete(g.entities, model); err != nil {
			return nil, err
		}
		s.attach(g)
	}
	return g, nil
}

func (s *Store[T]) attach(g *Engine) { s.engine = g }

func (s *Store[T]) entity() (*Entity, reflect.Type) { return s.Entity, reflect.TypeFor[T]() }

// key returns a record's id and version.
func (s *Store[T]) key(t *T) (uuid.UUID, int) {
	v := reflect.ValueOf(t)
	return s.column["id"].value(v).(uuid.UUID), s.column["version"].value(v).(int)
}

// globalID returns the API's id of a row.
func (e *Entity) globalID(id uuid.UUID) ID { return ID{Prefix: e.Prefix, UUID: id} }

// query runs q and scans each row: the columns before the entity's own go to extra.
func (s *Store[T]) query(ctx context.Context, q *query, extra ...any) ([]*T, error) {
	var out []*T
	err := s.each(ctx, q, extra, func(t *T) { out = append(out, t) })
	return out, err
}

// each runs q and calls f for each row, after the leading columns were scanned into extra.
func (s *Store[T]) each(ctx context.Context, q *query, extra []any, f func(*T)) (err error) {
	rows := &sql.Rows{}
	if err := s.engine.reader(ctx).Query(ctx, q.text.String(), q.args, rows); err != nil {
		return s.engine.translate(fmt.Errorf("read %s: %w", s.Table, err))
	}
	defer func() { err = errors.Join(err, s.engine.translate(rows.Close())) }()
	// The scan targets live for one row after another: Assign copies the values out of them.
	targets, err := s.model.Targets(nil, s.names)
	if err != nil {
		return err
	}
	dest := append(extra[:len(extra):len(extra)], targets...)
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("scan %s: %w", s.Table, err)
		}
		t := s.model.New()
		if err := s.model.Assign(t, s.names, targets); err != nil {
			return fmt.Errorf("scan %s: %w", s.Table, err)
		}
		f(t)
	}
	return s.engine.translate(rows.Err())
}
