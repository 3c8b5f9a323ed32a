package changelog

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// BenchmarkUpdate compares updates of one record by 8 connections with and without the triggers, in turns of a tenth of a second:
// the ratio is of the updates in a second.
func BenchmarkUpdate(b *testing.B) {
	db := setup(b)
	tables := []string{"plain", "versioned", "logged"}
	for _, table := range tables {
		db.exec(`CREATE TABLE ` + table + ` (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), version bigint DEFAULT 1, n int UNIQUE, title text, body text,
			state text, author uuid DEFAULT gen_random_uuid(), created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), pinned bool);
			INSERT INTO ` + table + ` (n, title, body, state) SELECT n, 'title', repeat('body ', 40), 'OPEN' FROM generate_series(1, 10000) n`)
	}
	db.exec(`SELECT changelog_track('versioned', 'V', '{}', false), changelog_track('logged', 'L'); ANALYZE`)

	turn := func(table string, lasts time.Duration) (done int) {
		var (
			writers errgroup.Group
			counts  [8]int
		)
		end := time.Now().Add(lasts)
		for w := range counts {
			writers.Go(func() error {
				for ; time.Now().Before(end); counts[w]++ {
					if _, err := db.Exec(b.Context(), `UPDATE `+table+` SET title = $2, updated_at = now(), version = version + 1 WHERE n = $1
						RETURNING id, version`, 1+rand.IntN(10000), strconv.FormatUint(rand.Uint64(), 36)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(b, writers.Wait())
		for _, n := range counts {
			done += n
		}
		return done
	}
	for _, table := range tables {
		turn(table, 200*time.Millisecond)
	}
	ratios := map[string][]float64{}
	for b.Loop() {
		plain := float64(turn("plain", 100*time.Millisecond))
		for _, table := range tables[1:] {
			ratios[table] = append(ratios[table], float64(turn(table, 100*time.Millisecond))/plain)
		}
	}
	for table, r := range ratios {
		slices.Sort(r)
		b.ReportMetric(r[len(r)/2], table+"/plain")
	}
}
