package record

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"godstack/internal/changelog"
	"godstack/internal/entity"
)

// ShowDeleted says which records of a list are asked for, of an entity whose deleted records can be restored. Who may restore them sees
// them, by asking. It is about the records of that list, and not about what they lead to.
type ShowDeleted string

// The values of ShowDeleted. The zero value is as ExcludeDeleted.
const (
	ExcludeDeleted ShowDeleted = "EXCLUDE" // those that are not deleted
	IncludeDeleted ShowDeleted = "INCLUDE" // those, and the deleted ones that who asks may restore
	OnlyDeleted    ShowDeleted = "ONLY"    // those deleted ones alone
)

// restoring is what it takes to see a deleted record, and to bring it back.
const restoring entity.Operation = "restore"

// deletedColumn is null of a record that is not deleted.
const deletedColumn = "deleted_at"

// The words that rules of reading have beside those of schema files: whether the record is deleted.
const (
	kindLive entity.RuleKind = "live"
	kindDead entity.RuleKind = "dead"
)

// sees makes the rules of reading: the declared rule for a record that is not deleted, and for a deleted one that of restoring as well,
// where it is asked for. So all that asks who may read a record leaves deleted ones out.
func (e *Entity) sees(declared, restore *rule) {
	e.rules[reading] = declared
	e.seeing = map[ShowDeleted]*rule{ExcludeDeleted: declared, IncludeDeleted: declared}
	e.seeing[OnlyDeleted] = &rule{kind: entity.KindAny} // of none
	if e.deleted == nil {
		return
	}
	live, dead := &rule{kind: kindLive, field: e.deleted}, &rule{kind: kindDead, field: e.deleted}
	all := func(rules ...*rule) *rule { return &rule{kind: entity.KindAll, rules: rules} }
	e.rules[reading] = all(live, declared)
	e.seeing = map[ShowDeleted]*rule{
		ExcludeDeleted: e.rules[reading],
		IncludeDeleted: all(declared, &rule{kind: entity.KindAny, rules: []*rule{live, all(dead, restore)}}),
		OnlyDeleted:    all(dead, declared, restore),
	}
}

// shows returns the rule of reading for who asks for deleted records, or does not.
func (e *Entity) shows(deleted ShowDeleted) *rule {
	if r := e.seeing[deleted]; r != nil {
		return r
	}
	return e.rules[reading]
}

// isDeleted reports whether a record is deleted and can be restored.
func (e *Entity) isDeleted(n Node) bool {
	return e.deleted != nil && n != nil && e.deleted.value(reflect.ValueOf(n)) != nil
}

// ends reports whether a change has its record deleted, for good or so that it can be restored.
func (e *Entity) ends(c changelog.Change) bool {
	return c.Op == changelog.OpDelete || e.deletes(c)
}

// deletes reports whether a change has its record deleted so that it can be restored.
func (e *Entity) deletes(c changelog.Change) bool {
	if e.deleted == nil || c.Op != changelog.OpUpdate || !slices.Contains(c.Fields, deletedColumn) {
		return false
	}
	old, err := oldValues(c.Old)
	return err == nil && string(old[deletedColumn]) == "null"
}

// deleteSoftly marks the record that has this id and version, and meets need, as deleted.
func (s *Store) deleteSoftly(ctx context.Context, who asker, need *rule, key uuid.UUID, version int) error {
	v := &Values{Set: []Assignment{{deletedColumn, entity.Now()}}}
	return s.engine.write(ctx, s.oneStatement(v), checks{}, func(ctx context.Context, drv dialect.Driver) error {
		_, err := s.model.Update(ctx, drv, key, version, v, s.allowed(who, need))
		return err
	})
}

// Restore brings a deleted record back if its version is the expected one, that of its deletion. Else it answers CONFLICT, FORBIDDEN or
// NOT_FOUND; BAD_USER_INPUT where the record has that version and is not deleted.
func Restore(ctx context.Context, s *Store, id ID, expectedVersion int) (Raw, error) {
	who := askerOf(ctx)
	key, err := s.target(who, restoring, id, expectedVersion)
	if err != nil {
		return nil, err
	}
	var n Node
	v := &Values{Clear: []string{deletedColumn}}
	err = s.engine.write(ctx, s.oneStatement(v), checks{}, func(ctx context.Context, drv dialect.Driver) (err error) {
		n, err = s.model.Update(ctx, drv, key, expectedVersion, v, s.allowed(who, s.shows(OnlyDeleted)))
		return err
	})
	if errors.Is(err, ErrNoRow) {
		err = s.unrestored(ctx, key, expectedVersion)
	}
	if err != nil {
		return nil, s.refused(who, err, InUpdate)
	}
	return Render(ctx, s, n)
}

// unrestored says why there was no deleted record of this version that who asks may restore.
func (s *Store) unrestored(ctx context.Context, id uuid.UUID, expected int) error {
	n, err := s.standing(ctx, restoring, s.shows(IncludeDeleted), s.rules[restoring], id)
	if err != nil {
		return err
	}
	_, current := s.key(n)
	if current == expected && !s.isDeleted(n) {
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s is not deleted", s.globalID(id)), Fields: []string{"id"}}
	}
	columns, err := s.changedSince(ctx, id, expected, current)
	if err != nil {
		return err
	}
	return s.conflicting(ctx, n, expected, columns)
}
