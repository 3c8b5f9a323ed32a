package app

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// TestInABrowser runs the tests of web/e2e in Chromium, against the program with its demonstration data.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	const web = "../../web"
	require.FileExists(t, filepath.Join(web, "node_modules/playwright-core/package.json"), "run npm ci in web/; make test does so")
	node, err := exec.LookPath("node")
	require.NoError(t, err, "run scripts/install")
	files, err := filepath.Glob(filepath.Join(web, "e2e/*.test.mjs"))
	require.NoError(t, err)
	require.NotEmpty(t, files)

	a := start(t, Config{DatabaseURL: dbtest.URL(t), Development: true, Seed: true})
	for _, file := range files {
		cmd := exec.CommandContext(t.Context(), node, "--test", "--test-reporter=spec", filepath.Join("e2e", filepath.Base(file)))
		cmd.Dir = web
		cmd.Env = append(os.Environ(), "BASE_URL="+a.URL())
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		require.NoError(t, cmd.Run(), file)
	}
}

func TestSeedIsForDevelopment(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{DatabaseURL: dbtest.URL(t), Seed: true})
	require.EqualError(t, err, "app: Seed is for development")
}
