package changelog

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// BenchmarkSince is what a subscriber who comes back costs, beside 300,000 changes: of 1 to 1,000 records, of which one was changed, and of
// an entity with 100 changes since.
func BenchmarkSince(b *testing.B) {
	bundle := setup(b)
	bundle.here()
	bundle.exec(`INSERT INTO changes (entity, id, version, op) SELECT 'Other', gen_random_uuid(), 1, 'U' FROM generate_series(1, 300000) n;
		INSERT INTO thread (id) SELECT lpad(to_hex(n), 32, '0')::uuid FROM generate_series(1, 1000) n`)
	c := bundle.here()
	bundle.exec(`UPDATE thread SET title = 'a' WHERE id = #1`)
	for _, n := range []int{1, 20, 1000} {
		scope := Scope{Records: map[string][]uuid.UUID{}}
		for i := range n {
			scope.Records["Thread"] = append(scope.Records["Thread"], uuid.UUID{14: byte((i + 1) >> 8), 15: byte(i + 1)})
		}
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			for b.Loop() {
				m, err := Since(b.Context(), bundle, c, scope, 1000)
				require.NoError(b, err)
				require.Len(b, m.Changes, 1)
			}
		})
	}
	bundle.exec(`UPDATE thread SET title = 'b' WHERE id < '00000000-0000-0000-0000-000000000064'`)
	b.Run("entity", func(b *testing.B) {
		for b.Loop() {
			m, err := Since(b.Context(), bundle, c, Scope{Entities: []string{"Thread"}}, 1000)
			require.NoError(b, err)
			require.Len(b, m.Changes, 100)
		}
	})
	spans := []Span{{Entity: "Thread", ID: id(1)}}
	b.Run("history", func(b *testing.B) {
		for b.Loop() {
			changes, err := History(b.Context(), bundle, spans)
			require.NoError(b, err)
			require.Len(b, changes, 3)
		}
	})
}
