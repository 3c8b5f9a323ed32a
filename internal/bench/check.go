package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"godstack/internal/record"
)

// checks is how many answers to each operation are compared.
const checks = 10

// checkAnswers compares what both answer to the same requests. Nothing has been written yet, so versions are equal as well.
func checkAnswers(d *data, s servers) error {
	var clients [2]*client
	for target, p := range s {
		c, err := dial(p.addr)
		if err != nil {
			return err
		}
		defer c.close()
		clients[target] = c
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secrets
	for i := range operations {
		op := &operations[i]
		for range checks {
			in, thread := op.input(d, random, godstack, 0, 1)
			var bodies [2][]byte
			for target, c := range clients {
				body, err := c.do(op.appendRequest(nil, target, s[target].tokens, in))
				if err != nil {
					return fmt.Errorf("%s of %s: %w", op.name, targetNames[target], err)
				}
				bodies[target] = body
				if op.writes {
					d.versions[target][thread]++
				}
			}
			if err := equalAnswers(op, bodies); err != nil {
				return err
			}
		}
	}
	return nil
}

// equalAnswers returns an error where two answers mean different things.
func equalAnswers(op *operation, bodies [2][]byte) error {
	var answers [2]any
	for target, body := range bodies {
		if err := json.Unmarshal(body, &answers[target]); err != nil {
			return fmt.Errorf("%s: %s answers no JSON: %w", op.name, targetNames[target], err)
		}
		answers[target] = canonical(answers[target], op.writes)
	}
	if !reflect.DeepEqual(answers[godstack], answers[baseline]) {
		return fmt.Errorf("%s: the answers differ:\n%s\n%s", op.name, bodies[godstack], bodies[baseline])
	}
	return nil
}

// canonical makes equal what both write in ways of their own: a global id and the UUID in it, an instant and another text for it. When a
// record was written differs, where each writes its own.
func canonical(v any, written bool) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = canonical(e, written)
		}
		if _, ok := v["updatedAt"].(time.Time); ok && written {
			v["updatedAt"] = "just now"
		}
	case []any:
		for i, e := range v {
			v[i] = canonical(e, written)
		}
	case string:
		if id, err := record.ParseID(v); err == nil {
			return id.UUID
		}
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return t.UTC()
		}
	}
	return v
}
