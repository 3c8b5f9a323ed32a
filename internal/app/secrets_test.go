package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/logtest"
)

func TestDevelopmentKeepsItsKeys(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	const n = 20
	var got [n]Config
	atOnce(n, func(i int) {
		c, err := Config{Development: true, DataDir: dir}.withSecrets()
		if err != nil {
			t.Error(err)
		}
		got[i] = c
	})
	for _, c := range got {
		require.Equal(t, got[0], c, "all who begin at once have the same")
	}
	logtest.Secret(got[0].JWTKeys, got[0].SecretKeys)
	_, err := auth.ParseKeys(got[0].JWTKeys, "issuer", "audience")
	require.NoError(t, err)
	_, err = auth.ParseSecrets(got[0].SecretKeys)
	require.NoError(t, err)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing is left lying about")
	info, err := files[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// What is given goes before what is kept.
	c, err := Config{Development: true, DataDir: dir, SecretKeys: secretKeys}.withSecrets()
	require.NoError(t, err)
	require.Equal(t, []string{got[0].JWTKeys, secretKeys}, []string{c.JWTKeys, c.SecretKeys})

	require.NoError(t, os.WriteFile(filepath.Join(dir, secretsFile), []byte("{"), 0o600))
	_, err = Config{Development: true, DataDir: dir}.withSecrets()
	require.ErrorContains(t, err, "remove it to have new ones made")
}
