package telemetry

import (
	"testing"

	"godstack/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
