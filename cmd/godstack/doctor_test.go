package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/app"
	"godstack/internal/dbtest"
)

// doctor runs the command and returns its exit code, and what it writes.
func doctor(t *testing.T, args, environ []string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"doctor"}, args...), environ, &out, &errs)
	return code, out.String(), errs.String()
}

// TestDoctor examines a deployment that has its faults: tests' servers do not wait for their disks.
func TestDoctor(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	environ := inProduction(url)
	code, stdout, stderr := doctor(t, nil, environ)
	require.Equal(t, 1, code)
	require.Regexp(t, `^godstack: [1-9] checks failed\n$`, stderr)
	line := regexp.MustCompile(`^(ok   |warn |fail ) [a-z_.]+ +\S.*$`)
	for text := range strings.SplitSeq(strings.TrimSuffix(stdout, "\n"), "\n") {
		require.Regexp(t, line, text)
		require.Equal(t, strings.HasPrefix(text, "ok"), !strings.Contains(text, ": ") || strings.HasPrefix(text, "ok"), text)
	}
	require.Regexp(t, `(?m)^fail  database.fsync +off: .*: fsync = on in postgresql.conf$`, stdout)
	require.Regexp(t, `(?m)^ok    listen +through DATABASE_URL a notification arrives, after .*s$`, stdout)
	require.Regexp(t, `(?m)^warn  mail +no mail is sent`, stdout)

	code, stdout, _ = doctor(t, []string{"--json"}, environ)
	require.Equal(t, 1, code)
	var found struct {
		OK, Warn, Fail int
		Checks         []app.Check
	}
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&found))
	require.Equal(t, len(found.Checks), found.OK+found.Warn+found.Fail)
	require.Positive(t, found.Fail)
	require.Contains(t, stdout, `"name": "database.version",`)

	// Nothing tells a key.
	for _, secret := range []string{testSecretKeys, testJWTKeys[strings.LastIndexByte(testJWTKeys, ':')+1:]} {
		require.NotContains(t, stdout, secret)
	}
}

// TestDoctorOfNothingWrong exits with 0 where there are warnings: in development, without a database.
func TestDoctorOfNothingWrong(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := doctor(t, nil, nil)
	require.Zero(t, code, stdout)
	require.Empty(t, stderr)
	require.Regexp(t, `(?m)^warn  environment `, stdout)
	require.NotContains(t, stdout, "fail ")
}

// TestDoctorOfTheEnvironment says all that is wrong in it, by the variables' names.
func TestDoctorOfTheEnvironment(t *testing.T) {
	t.Parallel()
	code, stdout, _ := doctor(t, nil, []string{"ENV=prod", "ADDR=localhost", "SECRET_KEYS=plover"})
	require.Equal(t, 1, code)
	for _, name := range []string{"ENV", "ADDR", "SECRET_KEYS"} {
		require.Regexp(t, `(?m)^fail  environment +`+name+`: `, stdout)
	}
	require.NotContains(t, stdout, "plover")
	code, _, stderr := doctor(t, []string{"--nodes", "-1"}, nil)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--nodes: -1 is no number of nodes")
}

// TestLoadBalancer has Caddy read its file, and build what it says.
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "caddy", "validate", "--adapter", "caddyfile", "--config", "../../deploy/Caddyfile")
	cmd.Env = []string{"PUBLIC_URL=http://localhost", "HOME=" + t.TempDir(), "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "this test needs caddy: scripts/install installs it: %s", out)
	require.Contains(t, string(out), "Valid configuration")
}
